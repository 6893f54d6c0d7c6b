"""Tables for the terminal."""

from typing import Any

from rich.table import Table

from jaxnas.report.progress import describe


def top_table(lines: list[dict[str, Any]], number: int) -> Table:
    """The best candidates by fitness."""
    table = Table(title=f"Top {min(number, len(lines))}", title_justify="left")
    for name in ("rank", "id"):
        table.add_column(name, justify="right")
    table.add_column("architecture", overflow="fold")
    for name in ("params", "MiB", "ms", "accuracy", "bits/byte", "fitness"):
        table.add_column(name, justify="right", no_wrap=True)
    for rank, line in enumerate(top_lines(lines, number), 1):
        costs, metrics = line["costs"], line["metrics"]
        table.add_row(
            str(rank),
            str(line["id"]),
            describe(line["config"]),
            millions(costs["stored_parameters"]),
            f"{costs['size_mib']:.1f}",
            f"{costs['latency_ms']:.2f}",
            f"{metrics['accuracy']:.4f}",
            f"{metrics['bits_per_byte']:.3f}",
            f"{line['fitness']:.4f}",
        )
    return table


def top_lines(lines: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The best by fitness, the older first of equals."""
    scored = [line for line in lines if line["status"] == "ok"]
    return sorted(scored, key=lambda line: (-line["fitness"], line["id"]))[:number]


def spread_table(spread: dict[str, dict[str, float]]) -> Table:
    """Each score's range over the candidates."""
    table = Table(title="Scores over the candidates", title_justify="left")
    table.add_column("score")
    for name in ("least", "mean", "greatest", "std"):
        table.add_column(name, justify="right")
    for name, row in spread.items():
        values = (row[key] for key in ("least", "mean", "greatest", "std"))
        table.add_row(name, *(f"{value:.4f}" for value in values))
    return table


def quality_table(splits: dict[str, dict[str, Any]]) -> Table:
    """The winner beside the counting models, on validation and test."""
    table = Table(title="Next-token quality", title_justify="left")
    table.add_column("model")
    for split in splits:
        table.add_column(f"{split} bits/byte", justify="right")
        table.add_column(f"{split} accuracy", justify="right")
    for model, name in (
        ("unigram", "token unigram"),
        ("bigram", "token bigram"),
        ("winner", "winner"),
    ):
        row = []
        for scores in splits.values():
            row += [
                f"{scores[model]['bits_per_byte']:.3f}",
                f"{scores[model]['accuracy']:.4f}",
            ]
        table.add_row(name, *row)
    return table


def millions(count: int) -> str:
    """49,021,824 -> 49.0M."""
    return f"{count / 1e6:.1f}M"
