"""Latency predicted and measured, as a table."""

from collections.abc import Sequence

from rich.table import Table

from jaxnas.latency.finalists import Finalist
from jaxnas.report.tables import add_numbers, plain_table


def finalists_table(finalists: Sequence[Finalist]) -> Table:
    """Milliseconds of the best candidates; spread is greatest - least."""
    table = plain_table("Latency in ms, 128 tokens read and a token drawn")
    add_numbers(table, "id", "reading", "predicted", "measured", "spread", "error")
    for finalist in finalists:
        for name, predicted in finalist.predicted.items():
            measured = getattr(finalist.measured, name)
            table.add_row(
                str(finalist.id),
                name,
                f"{predicted:.2f}",
                f"{measured.median:.2f}",
                f"{measured.greatest - measured.least:.2f}",
                f"{predicted / measured.median - 1:+.0%}",
            )
    return table
