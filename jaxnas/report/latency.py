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


def over_limit(
    finalists: Sequence[Finalist], winner: int, latency: str, most: float
) -> str | None:
    """A line if the winner takes longer by the clock than the limit allows.

    Args:
      finalists: that were measured.
      winner: its id.
      latency: what the limit is on, as the setting of that name says it.
      most: ms.
    """
    name = "decode" if latency == "decode" else "prefill"
    for finalist in finalists:
        measured = getattr(finalist.measured, name).median
        if finalist.id == winner and measured > most:
            closer = "; with --latency prefill the device is measured first"
            return (
                f"by the clock the winner takes {measured:.2f} ms, over the limit of "
                f"{most:g} ms, which it keeps by prediction"
                f"{closer if latency == 'estimate' else ''}"
            )
    return None
