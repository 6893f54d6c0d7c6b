"""`front SPACE`: the exact Pareto front of every model of a space, by its costs."""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from arch.scaling.laws import LAWS, ScalingLaw
from jaxnas.analytic.exhaustive import FrontPoint, SpaceFront, front_of
from jaxnas.analytic.law_fit import describe_fit, fit_runs
from jaxnas.analytic.limits import Limit, violation
from jaxnas.analytic.objectives import OBJECTIVES, Use
from jaxnas.commands.options import (
    Parser,
    add_fit,
    make_out,
    named_once,
    whole,
)
from jaxnas.errors import UsageError
from jaxnas.hardware import hardware_named
from jaxnas.presets import SPACE_NAMES
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.report.words import told_apart
from jaxnas.spaces import load_space
from jaxnas.storage.files import write_whole

_ABOUT = """\
Scores every model of a space by its costs alone, nothing is trained, and prints
the exact Pareto front: the models that no other one beats. Objectives are
minimised; limits leave out the models that break them.

objectives:
"""

_LAW = "besiroglu2024"
_COUNTS = ("vocab_size", "max_seq_length", "batch", "prompt", "context", "top")


def main(arguments: list[str]) -> None:
    """Prints the front; writes it with a plot where --out says so."""
    parser = Parser(
        prog="python -m jaxnas.run front",
        usage="python -m jaxnas.run front SPACE [--objectives A,B,...] [options]",
        description=_ABOUT
        + "\n".join(
            f"  {name:<14} {objective.about}" for name, objective in OBJECTIVES.items()
        ),
    )
    _add_options(parser)
    options = parser.parse_args(arguments)
    objectives = named_once(options.objectives, OBJECTIVES)
    limits = _limits(options)
    if options.fit and options.law is not None:
        raise UsageError(f"--law {options.law}: --fit fits another to the runs")
    make_out(options.out)
    fitted = fit_runs(options.fit) if options.fit else None
    law = LAWS[options.law or _LAW] if fitted is None else fitted.law
    space, use = load_space(options.space), _use(options, law)
    fields = {
        "vocab_size": options.vocab_size,
        "max_seq_length": options.max_seq_length,
        "tie_embeddings": options.tie_embeddings,
    }
    begin = time.perf_counter()
    result = front_of(space, objectives, use, limits, **fields)
    seconds = time.perf_counter() - begin
    console = plain_console()
    console.print(_table(result, options.top))
    left = len(result.points) - options.top
    if left > 0:
        console.print(f"and {left} more: --top {len(result.points)} shows all")
    console.print(
        f"{space.total:,} genomes, {result.genomes:,} of them valid and distinct, "
        f"{result.feasible:,} within the limits; {seconds:.2f} s"
    )
    console.print(
        f"counted with a vocabulary of {options.vocab_size:,}, {options.prompt:,} "
        f"tokens read{'' if limits else '; no limits (--max size=X, --min loss=X)'}"
    )
    for binding in result.binding:
        console.print(
            f"limit {binding.limit}: {binding.met:,} of {len(result.every):,} kinds of "
            f"model keep it, the closest has {binding.closest:,.6g}"
        )
    if "loss" in result.figures:
        console.print(f"loss: {law.label}")
    for line in [] if fitted is None else describe_fit(fitted):
        console.print(line)
    console.print(f"latency: predicted for {use.hardware.name}, not calibrated")
    if options.out is not None:
        drawn = _write(options.out, result, objectives, options)
        files = "front.json, front.png" if drawn else "front.json"
        console.print(f"written to {options.out}: {files}")
    if not result.points:
        raise UsageError("no model of the space keeps the limits")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "space", metavar="SPACE", help=f"{', '.join(SPACE_NAMES)}, or FILE.toml"
    )
    parser.add_argument(
        "--objectives",
        default="size,latency,loss",
        metavar="A,B",
        help="[size,latency,loss]",
    )
    for name, sign in (("max", "most"), ("min", "least")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="OBJECTIVE=X",
            help=f"at {sign} X; may be given several times, the tighter one counts",
        )
    parser.add_argument("--hardware", default="cpu-core", metavar="NAME")
    for flag, value, text in (
        ("--vocab-size", 8192, "tokens"),
        ("--max-seq-length", 2048, "tokens a model can hold"),
        ("--batch", 1, "sequences side by side"),
        ("--prompt", 128, "tokens that a forward pass and a prefill read"),
        ("--context", 128, "tokens remembered while another is drawn"),
        ("--top", 20, "rows to print"),
    ):
        parser.add_argument(
            flag, type=whole(), default=value, metavar="N", help=f"{text} [{value}]"
        )
    parser.add_argument(
        "--train-tokens",
        type=float,
        default=1e9,
        metavar="X",
        help="that the predicted loss is for [1e9]",
    )
    parser.add_argument(
        "--law",
        choices=LAWS,
        help=f"scaling law of the predicted loss [{_LAW}]",
    )
    add_fit(parser)
    parser.add_argument(
        "--tie-embeddings",
        action="store_true",
        help="one matrix for the embedding and the head",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder for front.json and front.png"
    )


def _limits(options: argparse.Namespace) -> list[Limit]:
    limits: dict[str, Limit] = {}
    for words in options.max:
        name, bound = _bound("--max", words)
        limit = limits.get(name, Limit(name))
        limits[name] = limit._replace(most=min(bound, limit.most))
    for words in options.min:
        name, bound = _bound("--min", words)
        limit = limits.get(name, Limit(name))
        limits[name] = limit._replace(least=max(bound, limit.least))
    for limit in limits.values():
        if not limit.least <= limit.most:
            raise UsageError(f"limit {limit} leaves nothing")
    return list(limits.values())


def _bound(flag: str, words: str) -> tuple[str, float]:
    """OBJECTIVE=X, taken apart."""
    name, _, value = words.partition("=")
    if name not in OBJECTIVES:
        raise UsageError(
            f"{flag}: no objective {name!r}: choose {', '.join(OBJECTIVES)}"
        )
    try:
        bound = float(value)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise UsageError(f"{flag} {words}: needs OBJECTIVE=NUMBER")
    return name, bound


def _use(options: argparse.Namespace, law: ScalingLaw) -> Use:
    for name in _COUNTS:
        if getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    if not 1 <= options.train_tokens < math.inf:
        raise UsageError("--train-tokens must be at least 1, and finite")
    return Use(
        hardware=hardware_named(options.hardware),
        batch=options.batch,
        prompt=options.prompt,
        context=options.context,
        training_tokens=options.train_tokens,
        law=law,
    )


def _table(result: SpaceFront, most: int) -> Table:
    shown = _spread(result.points, most)
    shared, own = told_apart([point.config.to_dict() for point in shown])
    of_all = (
        f", {len(shown)} from end to end" if len(shown) < len(result.points) else ""
    )
    all_ = f"; all {' '.join(shared)}" if shared else ""
    title = f"{len(result.points)} points on the front{of_all}{all_}"
    table = plain_table(title, "model")
    add_numbers(table, *(OBJECTIVES[name].title for name in result.figures), "genomes")
    for point, words in zip(shown, own, strict=True):
        cells = [
            format(value, OBJECTIVES[name].form)
            for name, value in zip(result.figures, point.values, strict=True)
        ]
        table.add_row(" ".join(words), *cells, f"{point.genomes:,}")
    return table


def _spread(points: Sequence[FrontPoint], most: int) -> list[FrontPoint]:
    """At most so many, evenly spread along the first objective."""
    if len(points) <= most:
        return list(points)
    places = np.linspace(0, len(points) - 1, most).round().astype(int)
    return [points[place] for place in places]


def _write(
    out: Path, result: SpaceFront, objectives: list[str], options: argparse.Namespace
) -> bool:
    """Writes both files; False if there was nothing to draw."""
    from jaxnas.report.front_plot import Axis, Clouds, plot_front

    content = {
        "settings": {
            **vars(options),
            "law": None if options.fit else options.law or _LAW,
            "out": str(out),
            "fit": list(map(str, options.fit)),
        },
        "objectives": objectives,
        "figures": result.figures,
        "genomes": result.genomes,
        "feasible": result.feasible,
        "points": [
            {
                "values": dict(zip(result.figures, point.values, strict=True)),
                "genomes": point.genomes,
                "config": point.config.to_dict(),
            }
            for point in result.points
        ],
    }
    write_whole(
        out / "front.json", json.dumps(content, indent=1, allow_nan=False) + "\n"
    )
    drawn = len(objectives)
    points = np.asarray([point.values for point in result.points], float)
    points = points.reshape(-1, len(result.figures))[:, :drawn]
    limits = {limit.objective: limit for limit in (one.limit for one in result.binding)}
    axes = [
        Axis(OBJECTIVES[name].title, limits[name][1:] if name in limits else ())
        for name in result.figures[:drawn]
    ]
    none = np.empty((0, drawn))
    every = result.every[:, :drawn]
    kept = np.broadcast_to(
        violation(
            tuple(limits.values()),
            dict(zip(result.figures, result.every.T, strict=True)),
        )
        <= 0,
        len(every),
    )
    clouds = Clouds(every, every[kept], points, none, none)
    return plot_front(out / "front.png", clouds, axes)
