"""`automl SPEC`: the best shapes for a budget, by their costs alone."""

import argparse
import dataclasses
import time
from pathlib import Path

from rich.console import Console

from arch.scaling.fit import LawFit
from jaxnas.analytic.law_fit import describe_fit, fit_runs
from jaxnas.automl.announce import print_found
from jaxnas.automl.conflicts import describe
from jaxnas.automl.history import keep_in, seeds_from
from jaxnas.automl.output import result_of, write_found, write_html
from jaxnas.automl.problem import Problem, configs_of
from jaxnas.automl.search import (
    EXHAUSTIVE,
    MOST_GENOMES,
    SEARCHES,
    SEEDED,
    USUAL_GENOMES,
    Found,
    search_shapes,
    usual_strategy,
)
from jaxnas.automl.spec import AIMS, read_spec, shipped_specs
from jaxnas.automl.tables import prototypes_table
from jaxnas.commands.options import (
    Parser,
    add_fit,
    make_out,
    named_once,
    whole,
)
from jaxnas.errors import UsageError
from jaxnas.keys import key_of
from jaxnas.report.tables import plain_console
from jaxnas.runtime import set_up
from jaxnas.storage.jsonl import Json

_ABOUT = """\
Searches the shapes that a spec allows, hidden 256 to 8192, 4 to 64 layers, by
parameters, latency, memory and predicted loss. Nothing is trained, but for the
prototypes that --train-prototypes asks for. A spec is a TOML file (see
docs/automl.md) or one of those that are shipped: {shipped}.
"""


def main(arguments: list[str]) -> None:
    """Prints the best shapes and the front; writes them where --out says so."""
    options = _parse(arguments)
    problem, fitted = _problem(options)
    make_out(options.out)
    make_out(options.history, "--history")
    set_up()
    console = plain_console()
    seeds = None
    if options.history is not None and options.strategy in SEEDED:
        seeds = seeds_from(options.history, problem.shapes)
        number = 0 if seeds is None else len(seeds)
        console.print(f"history     {number} shapes to start near")
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
    print_found(console, problem, found, options.strategy, seconds)
    for line in [] if fitted is None else describe_fit(fitted):
        console.print(line)
    result = _written(options, problem, found, console)
    if options.history is not None:
        keep_in(options.history, result)
    if found.conflict is not None:
        whole = found.evaluated == problem.shapes.total
        part = "" if whole else f" (of {found.evaluated:,} evaluated)"
        raise UsageError(f"{problem.spec.name}: {describe(found.conflict)}{part}")


def _problem(options: argparse.Namespace) -> tuple[Problem, LawFit | None]:
    """What is searched, and how; fills in the strategy."""
    spec = read_spec(options.spec)
    fitted = fit_runs(options.fit) if options.fit else None
    if fitted is not None:
        error = max(fitted.error, fitted.largest_error or 0.0)
        use = dataclasses.replace(spec.use, law=fitted.law, fit_error=error)
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
    return problem, fitted


def _written(
    options: argparse.Namespace, problem: Problem, found: Found, console: Console
) -> Json:
    """What was found as JSON; also in the folder of --out."""
    asked: Json = {
        "strategy": options.strategy,
        "budget": options.budget,
        "seed": options.seed,
    }
    result = result_of(problem, found, asked)
    if options.train_prototypes and len(found.top.genomes):
        result["prototypes"] = _prototypes(console, problem, found, options)
    if options.out is not None:
        drawn = write_found(options.out, problem, found, result)
        files = "automl.json, front.png" if drawn else "automl.json"
        if options.html:
            write_html(options.out, problem, found)
            files += ", front.html"
        console.print(f"written to {options.out}: {files}")
    return result


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
            flag, type=whole(), default=value, metavar="N", help=f"{text} [{value}]"
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
        help="folder of earlier results: start near those of like specs "
        f"({' and '.join(SEEDED)} alone), add this one",
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


def _prototypes(
    console: Console, problem: Problem, found: Found, options: argparse.Namespace
) -> Json:
    """Trains prototypes; prints how they rank, and returns it as JSON types."""
    from jaxnas.automl.prototypes import train_prototypes
    from jaxnas.report.steps import steps_shown

    predicted = found.top.values["loss"].tolist()
    with steps_shown(console, "prototypes") as report:
        made = train_prototypes(
            configs_of(problem, found.top),
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
