"""`evaluate MODEL ...`: what saved models are worth on files not trained on."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.progress import TaskID

from jaxnas.commands.options import MANY, Parser, file_to_write, whole
from jaxnas.errors import UsageError
from jaxnas.storage.jsonl import Json
from jaxnas.storage.run_folder import model_in

BENCHMARKS = ("bpb", "line", "fim")

_BITS, _LINES = ("bits_per_byte", "bigram"), ("exact_match", "edit_similarity")

_ABOUT = """\
Scores models on the test files of a source. MODEL is a folder with a saved model, or
a run's. bpb: bits per byte and next-token accuracy, beside token n-grams; line: how
often the likeliest tokens behind a cursor are the file's next line; fim: the same by
models that were trained to read what stands behind the line, too.
"""


def main(arguments: list[str]) -> None:
    """Prints a table, a row a model."""
    options = _parser().parse_args(arguments)
    wanted = options.on.split(",")
    for name in wanted:
        if name not in BENCHMARKS:
            raise UsageError(f"--on: no {name!r}: choose {', '.join(BENCHMARKS)}")
    for name in ("windows", "cursors", "context"):
        if not 1 <= getattr(options, name) <= 10**6:
            raise UsageError(f"--{name} {getattr(options, name)} must be 1 to 1000000")
    # Only now, for it takes seconds.
    from jaxnas.report.tables import plain_console
    from jaxnas.runtime import set_up

    set_up()
    console = plain_console()
    found = _scores(options, wanted, console)
    _print(found, options, wanted, console)
    if options.out is not None:
        about = {"data": options.data, "seed": options.seed, "context": options.context}
        options.out.write_text(json.dumps(about | {"models": found}, indent=2) + "\n")


def _scores(
    options: argparse.Namespace, wanted: list[str], console: Console
) -> dict[str, Json]:
    """Of each model, by its path."""
    from arch.cost import size_mib
    from jaxnas.benchmarks.bits import bits
    from jaxnas.benchmarks.lines import cursors, held_out, lines
    from jaxnas.data.fim import fim_ids
    from jaxnas.export.model_folder import load_model
    from jaxnas.report.steps import bars_on

    models = {str(path): load_model(model_in(path)) for path in options.models}
    places = []
    if {"line", "fim"} & set(wanted):
        places = cursors(held_out(options.data), options.cursors, options.seed)
    found = {}
    with bars_on(console) as bars:
        for name, model in models.items():
            one: Json = {"size_mib": size_mib(model.config)}
            if "bpb" in wanted:
                one["bpb"] = bits(model, options.data, options.windows)
            for which in _of_lines(wanted):
                filling = which == "fim"
                if filling and fim_ids(model.tokenizer) is None:
                    continue
                bar = bars.add_task(f"{name} {which}", total=len(places))

                def report(done: int, total: int, bar: TaskID = bar) -> None:
                    bars.update(bar, completed=done, total=total)

                one[which] = lines(model, places, options.context, report, filling)
            found[name] = one
    return found


def _print(
    found: dict[str, Json],
    options: argparse.Namespace,
    wanted: list[str],
    console: Console,
) -> None:
    from jaxnas.report.tables import add_numbers, plain_table

    table = plain_table(f"On the test files of {options.data}")
    table.add_column("model", overflow="fold", min_width=16)
    add_numbers(table, "MiB")
    if "bpb" in wanted:
        add_numbers(table, "bits/byte", "bigram")
    for which in _of_lines(wanted):
        add_numbers(table, f"{which}s", "alike")
    errors = []
    for name, one in found.items():
        cells = [f"{one['size_mib']:.2f}"]
        if "bpb" in wanted:
            cells += [f"{one['bpb'][figure]:.3f}" for figure in _BITS]
        for which in _of_lines(wanted):
            scores = one.get(which)
            cells += ["-" if scores is None else f"{scores[f]:.3f}" for f in _LINES]
            if scores is not None:
                errors.append(scores["exact_match_error"])
        table.add_row(name, *cells)
    console.print(table)
    if errors:
        console.print(
            f"lines: share of {options.cursors} lines at most that are completed "
            f"exactly, standard error at most {max(errors):.3f}; fims: the same, with "
            f"what stands behind the line; alike: edit similarity",
            soft_wrap=True,
        )


def _of_lines(wanted: list[str]) -> list[str]:
    return [name for name in ("line", "fim") if name in wanted]


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run evaluate",
        usage="python -m jaxnas.run evaluate MODEL ... [--data SOURCE] [settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("models", metavar="MODEL", type=Path, nargs="+", help="a model's folder")
    add("--on", default="bpb,line", metavar="A,B", help=f"[{','.join(BENCHMARKS)}]")
    add("--data", default="stdlib", metavar="SOURCE", help="as of a search [stdlib]")
    add("--windows", type=whole(MANY), default=512, metavar="N", help="of bpb [512]")
    add("--cursors", type=whole(MANY), default=200, metavar="N", help="of line [200]")
    add(
        "--context",
        type=whole(),
        default=256,
        metavar="N",
        help="tokens before a cursor, at most [256]",
    )
    add("--seed", type=whole(), default=0, metavar="N", help="of the cursors [0]")
    add("--out", type=file_to_write, metavar="FILE", help="the figures as JSON")
    return parser
