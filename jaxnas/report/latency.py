"""Latency predicted and measured, as a table."""

from typing import Any

from rich.table import Table

from jaxnas.report.tables import add_numbers, plain_table


def finalists_table(finalists: list[dict[str, Any]]) -> Table:
    """Milliseconds of the best candidates; spread is greatest - least."""
    table = plain_table("Latency in ms, 128 tokens read and a token drawn")
    add_numbers(table, "id", "reading", "predicted", "measured", "spread", "error")
    for one in finalists:
        for name, found in one["measured"].items():
            predicted = one["predicted"][name]
            table.add_row(
                str(one["id"]),
                name,
                f"{predicted:.2f}",
                f"{found['median']:.2f}",
                f"{found['greatest'] - found['least']:.2f}",
                f"{predicted / found['median'] - 1:+.0%}",
            )
    return table
