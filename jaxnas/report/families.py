"""How each family did: its candidates, and the best of them."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from jaxnas.report.tables import (
    add_numbers,
    candidate_cells,
    candidate_columns,
    plain_table,
    top_lines,
)
from jaxnas.report.words import describe


def family_summary(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """family -> {"evaluated", "ok", "best"}; best is an id, None if all failed."""
    found = {}
    for family, members in _by_family(lines).items():
        scored = [line for line in members if line["status"] == "ok"]
        best = top_lines(members, 1)
        found[family] = {
            "evaluated": len(members),
            "ok": len(scored),
            "best": best[0]["id"] if best else None,
        }
    return found


def family_table(
    lines: list[dict[str, Any]], extra: Sequence[str] = (), when: str = ""
) -> Table:
    """Each family's best candidate, the best family first; as for `top_table`.

    `when` follows the title.
    """
    table = plain_table(f"Best of each family{when}")
    add_numbers(table, "tried", "id")
    table.add_column("model", overflow="fold")
    add_numbers(table, *candidate_columns(extra))
    families = _by_family(lines)
    best = [top for own in families.values() for top in top_lines(own, 1)]
    for line in top_lines(best, len(best)):
        tried = len(families[line["config"]["arch_type"]])
        model = describe(line["config"])
        table.add_row(str(tried), str(line["id"]), model, *candidate_cells(line))
    for family, members in families.items():
        if not top_lines(members, 1):
            skipped = sum(line["status"] == "skipped" for line in members)
            failed = len(members) - skipped
            model = f"{family}: {skipped} skipped as too large, {failed} failed"
            dashes = ["-"] * len(candidate_columns(extra))
            table.add_row(str(len(members)), "-", model, *dashes)
    return table


def _by_family(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    families: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        families.setdefault(line["config"]["arch_type"], []).append(line)
    return families
