"""How far the screening can be trusted: phases against each other, and noise."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import spearmanr

from jaxnas.pipeline.phases import Climbed
from jaxnas.pipeline.promotion import Line
from jaxnas.report.tables import add_numbers, plain_table, top_lines
from jaxnas.training.rungs import Rung

TOP = 3


def trust_of(
    first: str,
    lines: Sequence[Line],
    phases: Sequence[Climbed],
    repeats: Sequence[float],
) -> dict[str, Any]:
    """What the later phases say of the earlier ones.

    Args:
      first: name of the first phase.
      lines: its candidates.
      phases: the later ones.
      repeats: accuracies of one config after the first phase, from other seeds,
        the run's own among them.
    """
    names = [first, *(phase.name for phase in phases)]
    every = [list(lines), *(phase.lines for phase in phases)]
    final = {line["id"] for line in top_lines(every[-1], TOP)}
    steps = []
    for at, phase in enumerate(phases):
        ok = [line for line in every[at] if line["status"] == "ok"]
        left = len(ok) - len(phase.chosen.promoted)
        lucky = {line["id"] for line in phase.chosen.lucky}
        steps.append(
            {
                "from": names[at],
                "to": names[at + 1],
                "candidates": len(ok),
                "promoted": len(phase.chosen.promoted),
                "lucky": len(lucky),
                "left_behind": left - len(lucky),
                "correlation": rank_correlation(ok, phase.lines),
                "correlation_promoted": rank_correlation(
                    phase.chosen.promoted, phase.lines
                ),
                "top": len(final),
                "top_by_luck": len(final & lucky),
            }
        )
    accuracies = [_accuracy(line) for line in lines if line["status"] == "ok"]
    return {
        "phases": steps,
        "noise": {
            "phase": first,
            "accuracies": list(repeats),
            "std": _deviation(repeats),
            "std_over_candidates": _deviation(accuracies),
        },
    }


def phase_summary(
    rungs: Sequence[Rung], lines: Sequence[Line], phases: Sequence[Climbed]
) -> list[dict[str, Any]]:
    """What each phase trained, and the candidates that came out best."""
    every = [list(lines), *(phase.lines for phase in phases)]
    return [
        {
            "phase": rung.name,
            "steps": rung.steps,
            "candidates": len(found),
            "ok": sum(line["status"] == "ok" for line in found),
            "top": [line["id"] for line in top_lines(found, TOP)],
        }
        for rung, found in zip(rungs, every, strict=False)
    ]


def rank_correlation(before: Sequence[Line], after: Sequence[Line]) -> float | None:
    """Spearman's, of the accuracies of those in both; None where it has no value."""
    later = {line["id"]: _accuracy(line) for line in after if line["status"] == "ok"}
    pairs = [
        (_accuracy(line), later[line["id"]]) for line in before if line["id"] in later
    ]
    if len(pairs) < 3:
        return None
    columns = np.asarray(pairs).T
    if any(len(np.unique(column)) < 2 for column in columns):
        return None
    return float(spearmanr(*columns).statistic)


def trust_table(trust: dict[str, Any]) -> Table:
    """A line for each step from a phase to the next."""
    table = plain_table("How far a phase foretells the next", "from", "to")
    add_numbers(
        table, "of", "promoted", "by luck", "rank corr.", "promoted's", "top lost"
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


def noise_line(trust: dict[str, Any]) -> str | None:
    """One config's spread over seeds beside the candidates' spread."""
    noise = trust["noise"]
    if noise["std"] is None or noise["std_over_candidates"] is None:
        return None
    return (
        f"noise        accuracy after {noise['phase']}: std {noise['std']:.4f} over "
        f"{len(noise['accuracies'])} seeds of the winner, "
        f"{noise['std_over_candidates']:.4f} over the candidates"
    )


def _accuracy(line: Line) -> float:
    return line["metrics"]["accuracy"]


def _deviation(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    found = float(np.std(values, ddof=1))
    return found if math.isfinite(found) else None


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
