"""How far the screening can be trusted, as a table and a line."""

from rich.table import Table

from jaxnas.report.tables import add_numbers, plain_table
from jaxnas.results.trust import Trust


def trust_table(trust: Trust) -> Table:
    """A line for each step from a phase to the next."""
    table = plain_table("Rank correlation between phases", "from", "to")
    add_numbers(
        table, "of", "promoted", "random", "rank corr.", "promoted's", "top lost"
    )
    for step in trust["phases"]:
        table.add_row(
            step["from"],
            step["to"],
            str(step["candidates"]),
            str(step["promoted"]),
            str(step["lucky"]),
            _figure(step["correlation"]),
            _figure(step["correlation_promoted"]),
            f"{step['top_by_luck']} of {step['top']}" if step["lucky"] else "-",
        )
    return table


def noise_line(trust: Trust) -> str | None:
    """One config's spread over seeds beside the candidates' spread."""
    noise = trust["noise"]
    if noise["std"] is None or noise["std_over_candidates"] is None:
        return None
    return (
        f"noise        accuracy after {noise['phase']}: std {noise['std']:.4f} over "
        f"{len(noise['accuracies'])} seeds of the winner, "
        f"{noise['std_over_candidates']:.4f} over the candidates"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
