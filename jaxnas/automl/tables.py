"""Tables of an analytic search."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from arch import ArchitectureConfig
from arch.families import USES, has_heads
from jaxnas.analytic.limits import Binding, Limit
from jaxnas.automl.diverse import touched
from jaxnas.automl.problem import SHOWN, Candidates
from jaxnas.automl.prototypes import Prototypes
from jaxnas.report.tables import add_numbers, plain_table


def counted(number: float) -> str:
    """8,030,261,248 -> 8.03B."""
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return f"{number:,.0f}"


# A figure's column, and how it is written: short, for the file has all digits.
_COLUMNS = {
    "params": ("params", counted),
    "memory": ("GiB", lambda value: f"{value / 1024:,.2f}"),
    "prefill": ("prefill", lambda value: f"{value:,.1f}"),
    "decode": ("decode", lambda value: f"{value:,.2f}"),
    "loss": ("loss", lambda value: f"{value:.4f}"),
}


_DIMENSIONS = ("hidden", "layers", "heads", "kv", "FFN")


def shapes_table(
    title: str,
    configs: Sequence[ArchitectureConfig],
    candidates: Candidates,
    scores: np.ndarray | None = None,
    limits: tuple[Limit, ...] = (),
    knee: int = -1,
) -> Table:
    """A row for each shape, with the limits that it is at; the knee's has a star."""
    table = plain_table(f"{title}; prefill and decode in ms, loss predicted")
    table.padding = 0  # eleven columns
    add_numbers(table, "#", *_DIMENSIONS)
    add_numbers(table, *(_COLUMNS[name][0] for name in SHOWN))
    if scores is not None:
        add_numbers(table, "score")
    if limits:
        table.add_column(" at")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for row, config in enumerate(configs):
        figures = [_COLUMNS[name][1](candidates.values[name][row]) for name in SHOWN]
        score = [] if scores is None else [f"{scores[row]:.4f}"]
        at = [" " + " ".join(touched(limits, candidates, row))] if limits else []
        number = f"{row + 1}{'*' if row == knee else ''}"
        table.add_row(number, *_shape(config), *figures, *score, *at)
    return table


def limits_table(binding: Sequence[Binding], number: int) -> Table:
    """How many keep each limit, and the value that is nearest to it.

    That of a shape that keeps the limit, if there is one.
    """
    table = plain_table("Limits, the least often kept first", "limit")
    add_numbers(table, "kept by", "share", "nearest to it")
    for limit, met, closest in binding:
        share = f"{100 * met / number:.1f} %"
        table.add_row(str(limit), f"{met:,}", share, f"{closest:,.6g}")
    return table


def prototypes_table(prototypes: Prototypes, predicted: Sequence[float]) -> Table:
    """What was predicted for each shape, beside its prototype's measured loss."""
    table = plain_table("Prototypes, really trained")
    table.padding = 0
    add_numbers(table, "#", *_DIMENSIONS)
    add_numbers(table, "pred. loss", "its own", "measured", "bits/byte")
    pairs = zip(prototypes.each, predicted, strict=True)
    for row, (prototype, loss) in enumerate(pairs, 1):
        failed = prototype.loss is None
        table.add_row(
            str(row),
            *_shape(prototype.config),
            f"{loss:.4f}",
            f"{prototype.predicted:.4f}",
            "failed" if failed else f"{prototype.loss:.4f}",
            "-" if failed else f"{prototype.bits_per_byte:.3f}",
        )
    return table


def _shape(config: ArchitectureConfig) -> list[str]:
    heads = has_heads(config.arch_type)
    with_ffn = "ffn_multiplier" in USES[config.arch_type]
    return [
        str(config.hidden_dim),
        str(config.num_layers),
        str(config.num_heads) if heads else "-",
        str(config.key_value_heads) if heads else "-",
        f"{config.ffn_multiplier:g}" if with_ffn else "-",
    ]
