"""Tables for the terminal."""

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from jaxnas.evaluation.fitness import OBJECTIVES
from jaxnas.report.words import told_apart
from jaxnas.results.ranking import top_results
from jaxnas.results.result import Result, Scored
from jaxnas.results.spread import Spread

_WIDE = 10_000  # columns, in which no table is too wide
_TALL = 2  # lines a row that still read as a table


class PlainConsole(Console):
    """Prints text as it is; where a table is too wide, a row in some lines.

    Otherwise words and figures would be cut, and a figure without its end is another
    one.
    """

    def __init__(self) -> None:
        super().__init__(markup=False, highlight=False)

    def print(self, *objects: Any, **settings: Any) -> None:
        """As `Console.print`."""
        for one in objects:
            if isinstance(one, Table) and self._is_narrow_for(one):
                super().print(one.title, style="bold")
                super().print("\n".join(as_records(one, self.width)), soft_wrap=True)
            else:
                super().print(one, **settings)
        if not objects:
            super().print(**settings)

    def _is_narrow_for(self, table: Table) -> bool:
        wide = self.options.update(width=_WIDE)
        if Measurement.get(self, wide, table).minimum > self.width:
            return True
        return len(self.render_lines(table)) > _TALL * (table.row_count + 1)


def as_records(table: Table, width: int) -> list[str]:
    """A table's rows as lines: its first text, then names with their figures.

    Args:
      table: whose cells are texts.
      width: of a line, if no cell alone is longer.
    """
    # A name needs no label and comes first, whatever figures stand before it.
    order = sorted(table.columns, key=lambda column: column.justify == "right")
    named = order[0].justify != "right"
    rest = [column for column in table.columns if column is not order[0]]
    columns = [(str(column.header), list(column.cells)) for column in (order[0], *rest)]
    lines = []
    for row in range(table.row_count):
        cells = [(name, str(cells[row])) for name, cells in columns]
        first, *others = [
            f"{name} {cell}".strip() for name, cell in cells if cell.strip()
        ]
        if named:
            first = cells[0][1]
        lines += textwrap.wrap(first, width) or [""]
        line = ""
        for part in others:
            if line and len(line) + 2 + len(part) + 2 > width:
                lines.append(f"  {line}")
                line = ""
            line = f"{line}  {part}" if line else part
            while len(line) + 2 > width and " " in line[: width - 2]:
                cut = line[: width - 2].rindex(" ")
                lines.append(f"  {line[:cut]}")
                line = line[cut + 1 :].strip()
        lines += [f"  {line}"] if line else []
    return lines


def plain_console() -> Console:
    """A console that prints text as it is: a path may hold brackets."""
    return PlainConsole()


def prints(signs: str) -> bool:
    """Whether the terminal, or what it is piped into, has these characters."""
    try:
        signs.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def plain_table(title: str, *columns: str) -> Table:
    """A table with a title and columns of text."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def add_numbers(table: Table, *columns: str) -> None:
    """Adds columns of figures."""
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)


def top_table(
    results: Iterable[Result],
    number: int,
    extra: Sequence[str] = (),
    winner: int | None = None,
) -> Table:
    """The winner, and the best others by fitness; the title says what they share.

    Args:
      results: of all candidates.
      number: of candidates at most.
      extra: the names of the user's objectives.
      winner: its id; None for the fittest.
    """
    best = top_results(results, number, winner)
    weighed = is_weighed(best)
    shared, own = told_apart([result.config.to_dict() for result in best])
    all_ = f", all {' '.join(shared)}" if shared else ""
    table = plain_table(f"Top {len(best)}{all_}")
    add_numbers(table, "rank", "id")
    table.add_column("model", overflow="fold")
    add_numbers(table, *candidate_columns(extra, weighed))
    for rank, (result, words) in enumerate(zip(best, own, strict=True), 1):
        cells = candidate_cells(result, weighed)
        table.add_row(str(rank), str(result.id), " ".join(words), *cells)
    return table


def is_weighed(results: Iterable[Scored]) -> bool:
    """Whether fitness is more than the accuracy."""
    return any(result.fitness != result.metrics.accuracy for result in results)


def candidate_columns(extra: Sequence[str], weighed: bool = True) -> list[str]:
    """Names of `candidate_cells`; the user's objectives take the room of `params`.

    Fitness has a column where it is more than the accuracy.
    """
    figures = ["MiB", "ms", "accuracy", "bits/byte", *(["fitness"] if weighed else [])]
    return [*figures, *extra] if extra else ["params", *figures]


def candidate_cells(result: Scored, weighed: bool = True) -> list[str]:
    """A scored candidate's figures, under `candidate_columns`."""
    costs, metrics = result.costs, result.metrics
    own = result.objectives[len(OBJECTIVES) :]
    return [
        *([] if own else [millions(costs.stored_parameters)]),
        mebibytes(costs.size_mib),
        f"{costs.latency_ms:.2f}",
        f"{metrics.accuracy:.4f}",
        f"{metrics.bits_per_byte:.3f}",
        *([f"{result.fitness:.4f}"] if weighed else []),
        *(f"{value:.4g}" for value in own),
    ]


def spread_table(
    spread: Spread,
    title: str,
    kind: str = "score",
) -> Table:
    """Each score's range over the candidates."""
    table = plain_table(title, kind)
    add_numbers(table, "least", "mean", "greatest", "std")
    form = ".4f" if kind == "score" else ".4g"
    for name, row in spread.items():
        values = (row[key] for key in ("least", "mean", "greatest", "std"))
        table.add_row(name, *(f"{value:{form}}" for value in values))
    return table


def millions(count: int) -> str:
    """49,021,824 -> 49.0M, 213,568 -> 0.21M."""
    return f"{count / 1e6:.1f}M" if count >= 1e7 else f"{count / 1e6:.2f}M"


def mebibytes(size: float) -> str:
    """12.34 -> 12.3, 0.567 -> 0.57."""
    return f"{size:.1f}" if size >= 10 else f"{size:.2f}"
