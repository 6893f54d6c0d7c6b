"""The best candidate of each family, as a table."""

from collections.abc import Sequence

from rich.table import Table

from jaxnas.report.tables import (
    add_numbers,
    candidate_cells,
    candidate_columns,
    is_weighed,
    plain_table,
)
from jaxnas.report.words import describe
from jaxnas.results.ranking import by_family, top_results
from jaxnas.results.result import Result


def family_table(
    results: Sequence[Result], extra: Sequence[str] = (), when: str = ""
) -> Table:
    """Each family's best candidate, the best family first; as for `top_table`.

    `when` follows the title.
    """
    families = by_family(results)
    best = [top for own in families.values() for top in top_results(own, 1)]
    weighed = is_weighed(best)
    table = plain_table(f"Best of each family{when}")
    add_numbers(table, "tried", "id")
    table.add_column("model", overflow="fold")
    add_numbers(table, *candidate_columns(extra, weighed))
    for result in top_results(best, len(best)):
        tried = len(families[result.config.arch_type])
        model, cells = describe(result.config), candidate_cells(result, weighed)
        table.add_row(str(tried), str(result.id), model, *cells)
    for family, members in families.items():
        if not top_results(members, 1):
            skipped = sum(result.status == "skipped" for result in members)
            failed = len(members) - skipped
            model = f"{family}: {skipped} skipped as too large, {failed} failed"
            dashes = ["-"] * len(candidate_columns(extra, weighed))
            table.add_row(str(len(members)), "-", model, *dashes)
    return table
