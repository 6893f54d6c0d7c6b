"""What the limits buy: the winner beside what is smaller or faster."""

from collections.abc import Sequence

from rich.table import Table

from jaxnas.evaluation.fitness import OBJECTIVES
from jaxnas.report.tables import add_numbers, mebibytes, plain_table
from jaxnas.report.words import describe
from jaxnas.results.ranking import front_of
from jaxnas.results.result import Scored

ROWS = 6


def tradeoff_table(results: Sequence[Scored], size: float, latency: float) -> Table:
    """The front of accuracy against size and latency, the most accurate first.

    Each row says how much less it is than the first one: what a MiB or a millisecond
    of the limits has bought.

    Args:
      results: of one phase; the best first row is its most accurate.
      size: the limit in MiB.
      latency: the limit in ms, inf for none.
    """
    on_front = set(front_of(results, len(OBJECTIVES)))
    front = [result for result in results if result.id in on_front]
    front.sort(key=lambda result: (-result.metrics.accuracy, result.id))
    allowed = f"{size:g} MiB" + ("" if latency == float("inf") else f", {latency:g} ms")
    table = plain_table(
        f"What the limits buy ({allowed}): the most accurate, and how others differ"
    )
    add_numbers(table, "id")
    table.add_column("model", overflow="fold")
    add_numbers(table, "accuracy", "MiB", "ms")
    for place, result in enumerate(front[:ROWS]):
        best, costs = front[0], result.costs
        cells = (
            f"{result.metrics.accuracy:.4f}",
            mebibytes(costs.size_mib),
            f"{costs.latency_ms:.2f}",
        )
        if place:
            cells = (
                f"{result.metrics.accuracy - best.metrics.accuracy:+.4f}",
                f"{costs.size_mib - best.costs.size_mib:+.2f}",
                f"{costs.latency_ms - best.costs.latency_ms:+.2f}",
            )
        table.add_row(str(result.id), describe(result.config), *cells)
    return table
