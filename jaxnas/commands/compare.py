"""`compare SHAPE SHAPE ...` or `compare RUN RUN ...`: side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from arch import ArchitectureConfig
from arch.cost.sizes import sizes_of
from arch.scaling.shape import aspect_ratio, plain_ffn_ratio, shape_penalty
from jaxnas.analytic.objectives import OBJECTIVES, Use
from jaxnas.automl.named_shape import in_words
from jaxnas.commands.explain import add_use, described, shape_of, use_of
from jaxnas.commands.options import Parser, file_to_write
from jaxnas.errors import UsageError
from jaxnas.report.side_by_side import bands_svg, lines_of, runs_table
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.results.comparison import groups_of
from jaxnas.results.record import read_record
from jaxnas.storage.files import write_whole
from jaxnas.storage.inputs import is_file, user_path
from jaxnas.storage.run_folder import RunFolder

_ABOUT = """\
What shapes cost side by side, and how much more than the first. A SHAPE is written
as for `explain`: llama-3-8b, FILE.json, or hidden=4096,layers=32,heads=32,...
Or what searches found, by their folders: those that differ in their seed alone are one
group, and a permutation test over seeds says how often chance tells two groups as far
apart.
"""


def main(arguments: list[str]) -> None:
    """Prints a table: a row for each figure, a column for each shape."""
    parser = Parser(
        prog="python -m jaxnas.run compare",
        usage="python -m jaxnas.run compare SHAPE SHAPE ... | RUN RUN ... [options]",
        description=_ABOUT,
    )
    parser.add_argument("shapes", metavar="SHAPE|RUN", nargs="+")
    parser.add_argument(
        "--svg",
        type=file_to_write,
        metavar="FILE",
        help="of runs: draw the best",
    )
    add_use(parser)
    options = parser.parse_args(arguments)
    if len(options.shapes) < 2:
        raise UsageError("compare needs two or more, shapes or runs")
    runs = [is_run(text) for text in options.shapes]
    if any(runs):
        if not all(runs):
            raise UsageError(f"{options.shapes[runs.index(False)]} holds no run")
        _check_runs(options, parser)
        _compare_runs(options.shapes, options.svg)
        return
    if options.svg is not None:
        raise UsageError("--svg draws runs: these are shapes")
    use = use_of(options)
    configs = [shape_of(text, options) for text in options.shapes]
    console = plain_console()
    for number, (text, config) in enumerate(
        zip(options.shapes, configs, strict=True), 1
    ):
        console.print(f"{number}: {text}: {in_words(config)}")
    console.print(_table(configs, use))
    console.print(described(use))
    console.print(f"loss: {use.law.label}")


def is_run(text: str) -> bool:
    """Whether it is the folder of a run."""
    return is_file(RunFolder(user_path(text)).config)


def _check_runs(options: argparse.Namespace, parser: Parser) -> None:
    """Raises a UsageError for flags that are of shapes, and for a run named twice."""
    for name, value in vars(options).items():
        if name not in ("shapes", "svg") and value != parser.get_default(name):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is for shapes: these are runs")
    folders: set[Path] = set()
    for text in options.shapes:
        folder = user_path(text).resolve()
        if folder in folders:
            raise UsageError(f"{text} is named twice: a run counts once")
        folders.add(folder)


def _compare_runs(paths: Sequence[str], svg: Path | None) -> None:
    groups = groups_of([read_record(user_path(path)) for path in paths])
    console = plain_console()
    console.print(runs_table(groups))
    console.print("\n".join(lines_of(groups)), soft_wrap=True)
    corpora = {
        run.manifest.get("data", {}).get("corpus_hash")
        for group in groups
        for run in group.runs
    }
    if len(corpora) > 1:
        console.print("warning: not all read the same data: bits do not compare")
    if svg is not None:
        write_whole(svg, bands_svg(groups))
        console.print(f"drawing     {svg}", soft_wrap=True)


def _table(configs: Sequence[ArchitectureConfig], use: Use) -> Table:
    table = plain_table("Side by side", "figure")
    add_numbers(table, *map(str, range(1, len(configs) + 1)))
    sizes = [sizes_of(config) for config in configs]
    for objective in OBJECTIVES.values():
        values = [float(np.asarray(objective.of(own, own, use))) for own in sizes]
        first, *others = [format(value, objective.form) for value in values]
        more = [f" {100 * (value / values[0] - 1):+.1f} %" for value in values[1:]]
        cells = [cell + change for cell, change in zip(others, more, strict=True)]
        table.add_row(objective.title, first, *cells)
    for title, form, measured in (
        ("channels a layer", ".0f", aspect_ratio),
        ("feed-forward, plain", ".2f", plain_ffn_ratio),
        ("shape adds", ".2%", shape_penalty),
    ):
        table.add_row(title, *(format(float(measured(own)), form) for own in sizes))
    return table
