"""`automl SPEC`: the best shapes for a budget, by their costs alone."""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from arch import ArchitectureConfig
from jaxnas.analytic.law_fit import describe_fit, fit_runs
from jaxnas.analytic.limits import Limit
from jaxnas.analytic.objectives import OBJECTIVES
from jaxnas.automl.conflicts import describe
from jaxnas.automl.history import keep_in, seeds_from
from jaxnas.automl.named_shape import in_words
from jaxnas.automl.problem import Candidates, Problem
from jaxnas.automl.reasons import reasons
from jaxnas.automl.search import (
    EXHAUSTIVE,
    MOST_GENOMES,
    SEARCHES,
    USUAL_GENOMES,
    Found,
    search_shapes,
    usual_strategy,
)
from jaxnas.automl.spec import AIMS, read_spec, shipped_specs
from jaxnas.automl.tables import limits_table, prototypes_table, shapes_table
from jaxnas.commands.options import Parser, add_fit, make_out, named_once
from jaxnas.errors import UsageError
from jaxnas.keys import key_of
from jaxnas.report.tables import plain_console
from jaxnas.runtime import set_up
from jaxnas.storage.files import write_whole
from jaxnas.storage.jsonl import Json

if TYPE_CHECKING:
    from jaxnas.report.front_plot import Axis

_ABOUT = """\
Searches the shapes that a spec allows, hidden 256 to 8192, 4 to 64 layers, by
parameters, latency, memory and predicted loss. Nothing is trained, but for the
prototypes that --train-prototypes asks for. A spec is a TOML file (see
docs/automl.md) or one of those that are shipped: {shipped}.
"""
FRONT_ROWS = 20  # of the Pareto front that are printed


def main(arguments: list[str]) -> None:
    """Prints the best shapes and the front; writes them where --out says so."""
    options = _parse(arguments)
    spec = read_spec(options.spec)
    fitted = fit_runs(options.fit) if options.fit else None
    if fitted is not None:
        use = dataclasses.replace(spec.use, law=fitted.law, fit_error=fitted.error)
        spec = dataclasses.replace(spec, use=use)
    problem = Problem(spec, _objectives(options, spec.weights))
    if options.strategy is None:
        options.strategy = usual_strategy(problem.shapes.total)
    if options.strategy == EXHAUSTIVE and problem.shapes.total > MOST_GENOMES:
        raise UsageError(
            f"{problem.shapes.total:,} shapes are too many for --strategy exhaustive, "
            f"which counts up to {MOST_GENOMES:,}: narrow the dimensions"
        )
    if options.html:
        from jaxnas.report.front_html import require_plotly

        require_plotly()
    make_out(options.out)
    set_up()
    console = plain_console()
    seeds = None
    if options.history is not None:
        seeds = seeds_from(options.history, problem.shapes)
        console.print(
            f"history     {0 if seeds is None else len(seeds)} shapes to start near"
        )
    begin = time.perf_counter()
    found = search_shapes(
        problem,
        options.strategy,
        options.budget,
        options.top_k,
        key_of(options.seed, "automl"),
        seeds,
        similar=options.similar,
    )
    seconds = time.perf_counter() - begin
    _print(console, problem, found, options.strategy, seconds)
    for line in [] if fitted is None else describe_fit(fitted):
        console.print(line)
    result = _result(problem, found, options)
    if options.train_prototypes and len(found.top.genomes):
        result["prototypes"] = _prototypes(console, problem, found, options)
    if options.out is not None:
        drawn = _write(options.out, problem, found, result)
        files = "automl.json, front.png" if drawn else "automl.json"
        if options.html:
            _write_html(options.out, problem, found)
            files += ", front.html"
        console.print(f"written to {options.out}: {files}")
    if options.history is not None:
        keep_in(options.history, result)
    if found.conflict is not None:
        part = (
            ""
            if found.evaluated == problem.shapes.total
            else (f" (of {found.evaluated:,} evaluated)")
        )
        raise UsageError(f"{spec.name}: {describe(found.conflict)}{part}")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m jaxnas.run automl",
        usage="python -m jaxnas.run automl SPEC [options]",
        description=_ABOUT.format(shipped=", ".join(shipped_specs())),
    )
    parser.add_argument("spec", metavar="SPEC", help="a TOML file, or a shipped name")
    parser.add_argument(
        "--strategy",
        choices=(*SEARCHES, EXHAUSTIVE),
        help=f"how to search [exhaustive, which counts every shape; nsga2 for more "
        f"than {USUAL_GENOMES:,}]",
    )
    for flag, value, text in (
        ("--budget", 100_000, "shapes evaluated at most; exhaustive has none"),
        ("--top-k", 10, "rows of the table"),
        ("--seed", 0, "decides every random choice"),
        ("--train-prototypes", 0, "steps of a small version of each of the top"),
    ):
        parser.add_argument(
            flag, type=int, default=value, metavar="N", help=f"{text} [{value}]"
        )
    parser.add_argument(
        "--objectives",
        default="params,latency,performance",
        metavar="A,B",
        help=f"of {', '.join(AIMS)} [params,latency,performance]",
    )
    parser.add_argument(
        "--similar", action="store_true", help="near-copies in the table of the best"
    )
    add_fit(parser)
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder for automl.json and front.png"
    )
    parser.add_argument(
        "--html",
        action="store_true",
        help="in --out the front as front.html too: shapes say what they are",
    )
    parser.add_argument(
        "--history",
        metavar="DIR",
        type=Path,
        help="folder of earlier results: start near those of like specs, add this one",
    )
    options = parser.parse_args(arguments)
    if options.budget < 1 or options.top_k < 1 or options.train_prototypes < 0:
        raise UsageError(
            "--budget and --top-k must be at least 1, --train-prototypes at least 0"
        )
    if options.html and options.out is None:
        raise UsageError("--html needs --out DIR")
    if not 0 <= options.seed < 2**32:
        raise UsageError("--seed must be in 0 to 2**32 - 1")
    return options


def _objectives(
    options: argparse.Namespace, weights: dict[str, float]
) -> tuple[str, ...]:
    names = named_once(options.objectives, AIMS)
    if not any(weights[name] for name in names):
        raise UsageError(
            f"--objectives {options.objectives}: the spec's weights of all are 0"
        )
    return tuple(names)


def _print(
    console: Console, problem: Problem, found: Found, strategy: str, seconds: float
) -> None:
    spec, shapes = problem.spec, problem.shapes
    use = spec.use
    console.print(
        f"{spec.name}: {spec.family}, {shapes.total:,} shapes; {strategy} evaluated "
        f"{found.evaluated:,} in {seconds:.1f} s, {found.feasible:,} keep the limits"
    )
    if spec.limits:
        console.print(limits_table(found.binding, found.evaluated))
    if not found.feasible:
        table = shapes_table(
            "The shape that breaks the limits least",
            _configs(problem, found.nearest),
            found.nearest,
        )
        console.print(table)
        return
    title = f"Top {len(found.top.genomes)} by score"
    configs = _configs(problem, found.top)
    console.print(
        shapes_table(title, configs, found.top, found.scores, limits=spec.limits)
    )
    console.print("Why the first:")
    for line in reasons(problem, found.top, 0):
        console.print(f"- {line}")
    picks = _spread(problem, found)
    shown = found.apart.take(picks)
    title = (
        f"Pareto front over {', '.join(problem.objectives)}: {len(shown.genomes)} of "
        f"{len(found.apart.genomes):,} told apart of {len(found.front.genomes):,}; "
        "* the knee"
    )
    knee = picks.tolist().index(found.knee)
    configs = _configs(problem, shown)
    console.print(shapes_table(title, configs, shown, limits=spec.limits, knee=knee))
    console.print(
        f"latency: batch {use.batch}, {use.prompt} tokens read, {use.context} "
        f"remembered, on {use.devices} x {use.hardware.name}, not calibrated\n"
        f"loss: {use.law.label}; {use.training_tokens:.3g} training tokens"
    )


def _spread(problem: Problem, found: Found) -> np.ndarray:
    """Rows of the thinned front, evenly by the first objective, and the knee."""
    order = found.apart.values[problem.aims[0]].argsort(kind="stable")
    number = len(order)
    picks = {
        round(row * (number - 1) / max(1, FRONT_ROWS - 1))
        for row in range(min(number, FRONT_ROWS))
    }
    picks.add(int(np.flatnonzero(order == found.knee)[0]))
    return order[sorted(picks)]


def _configs(problem: Problem, candidates: Candidates) -> list[ArchitectureConfig]:
    return [problem.shapes.config(genome) for genome in candidates.genomes]


def _prototypes(
    console: Console, problem: Problem, found: Found, options: argparse.Namespace
) -> Json:
    """Trains prototypes; prints how they rank, and returns it as JSON types."""
    from jaxnas.automl.prototypes import train_prototypes
    from jaxnas.report.steps import steps_shown

    predicted = found.top.values["loss"].tolist()
    with steps_shown(console, "prototypes") as report:
        made = train_prototypes(
            _configs(problem, found.top),
            predicted,
            options.train_prototypes,
            options.seed,
            report,
        )
    console.print(prototypes_table(made, predicted))
    for what, value in (
        ("predicted loss of the shapes", made.spearman_of_shapes),
        ("predicted loss of the prototypes", made.spearman_of_prototypes),
    ):
        said = "nothing to rank" if value is None else f"{value:.3f}"
        console.print(f"Spearman of the {what} with the measured loss: {said}")
    return {
        "steps": options.train_prototypes,
        "spearman_of_shapes": made.spearman_of_shapes,
        "spearman_of_prototypes": made.spearman_of_prototypes,
        "each": [
            prototype._asdict() | {"config": prototype.config.to_dict()}
            for prototype in made.each
        ],
    }


def _result(problem: Problem, found: Found, options: argparse.Namespace) -> Json:
    """What automl.json holds; no clock times, so that a seed gives the same bytes."""
    spec = problem.spec
    use = dataclasses.asdict(spec.use)
    return {
        "spec": {
            "name": spec.name,
            "family": spec.family,
            "dimensions": spec.dimensions,
            "head_size": spec.head_size,
            "model": spec.model,
            "use": use | {"hardware": use["hardware"]["name"]},
            "limits": [_finite(limit) for limit in spec.limits],
            "weights": spec.weights,
        },
        "strategy": options.strategy,
        "budget": options.budget,
        "seed": options.seed,
        "objectives": problem.objectives,
        "shapes": problem.shapes.total,
        "evaluated": found.evaluated,
        "feasible": found.feasible,
        "limits": [
            {
                "limit": str(binding.limit),
                "kept_by": binding.met,
                "closest": binding.closest,
            }
            for binding in found.binding
        ],
        "bounds": problem.bounds,
        "top": [
            row | {"score": float(score)}
            for row, score in zip(_rows(problem, found.top), found.scores, strict=True)
        ],
        "front": _rows(problem, found.apart),
        "front_shapes": len(found.front.genomes),
        "knee": found.knee if found.knee >= 0 else None,
        "nearest": _rows(problem, found.nearest)[0] if not found.feasible else None,
        "conflict": None
        if found.conflict is None
        else [
            move._asdict() | {"limit": str(move.limit)} for move in found.conflict.moves
        ],
    }


def _finite(limit: Limit) -> list[str | float | None]:
    return [value if value not in _INFINITE else None for value in limit]


_INFINITE = (float("inf"), float("-inf"))


def _rows(problem: Problem, candidates: Candidates) -> list[Json]:
    return [
        {
            "values": {
                name: float(candidates.values[name][row]) for name in problem.figures
            },
            "config": config.to_dict(),
        }
        for row, config in enumerate(_configs(problem, candidates))
    ]


def _write(out: Path, problem: Problem, found: Found, result: Json) -> bool:
    """Writes the result and its plot; False if there was nothing to draw."""
    from jaxnas.report.front_plot import Clouds, plot_front

    write_whole(out / "automl.json", json.dumps(result, indent=1) + "\n")
    axes = _axes(problem)
    nearest = found.nearest.take(np.arange(0 if found.feasible else 1))
    parts = (found.every, found.kept, found.apart, found.top, nearest)
    clouds = Clouds(*(problem.table(part) for part in parts))
    return plot_front(out / "front.png", clouds, axes)


def _write_html(out: Path, problem: Problem, found: Found) -> None:
    from jaxnas.report.front_html import write_front_html

    parts = {
        "shapes": ("lightgray", found.every),
        "within the limits": ("steelblue", found.kept),
        "Pareto front": ("crimson", found.apart),
        "the best": ("gold", found.top),
    }

    def words(name: str, row: int) -> str:
        candidates = parts[name][1]
        config = problem.shapes.config(candidates.genomes[row])
        figures = [
            f"{OBJECTIVES[figure].title} {candidates.values[figure][row]:,.5g}"
            for figure in problem.figures
        ]
        rank = f"{row + 1}: " if name == "the best" else ""
        return "<br>".join([rank + in_words(config), *figures])

    write_front_html(
        out / "front.html",
        problem.spec.name,
        _axes(problem),
        [
            (name, color, problem.table(candidates))
            for name, (color, candidates) in parts.items()
            if len(candidates.genomes)
        ],
        words,
    )


def _axes(problem: Problem) -> "list[Axis]":
    from jaxnas.report.front_plot import Axis

    limits = {limit.objective: limit for limit in problem.spec.limits}
    return [
        Axis(OBJECTIVES[name].title, limits[name][1:] if name in limits else ())
        for name in problem.aims
    ]
