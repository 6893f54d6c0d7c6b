"""`compare SHAPE SHAPE ...`: what each costs, and how much more than the first."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from arch import ArchitectureConfig
from arch.cost.sizes import sizes_of
from arch.scaling.shape import aspect_ratio, plain_ffn_ratio, shape_penalty
from jaxnas.analytic.objectives import OBJECTIVES, Use
from jaxnas.automl.named_shape import in_words
from jaxnas.commands.explain import add_use, described, shape_of, use_of
from jaxnas.commands.options import Parser
from jaxnas.errors import UsageError
from jaxnas.report.tables import add_numbers, plain_console, plain_table

_ABOUT = """\
What shapes cost side by side, and how much more than the first. A SHAPE is written
as for `explain`: llama-3-8b, FILE.json, or hidden=4096,layers=32,heads=32,...
"""


def main(arguments: list[str]) -> None:
    """Prints a table: a row for each figure, a column for each shape."""
    parser = Parser(
        prog="python -m jaxnas.run compare",
        usage="python -m jaxnas.run compare SHAPE SHAPE ... [options]",
        description=_ABOUT,
    )
    parser.add_argument("shapes", metavar="SHAPE", nargs="+")
    add_use(parser)
    options = parser.parse_args(arguments)
    if len(options.shapes) < 2:
        raise UsageError("compare needs two shapes or more")
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
