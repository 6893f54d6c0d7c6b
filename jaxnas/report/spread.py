"""How much each score tells the candidates apart: an objective must not saturate."""

from typing import Any

import numpy as np

from jaxnas.fitness import FitnessSettings, scores

SCORES = ("accuracy", "size", "latency")


def score_spread(
    lines: list[dict[str, Any]], settings: FitnessSettings
) -> dict[str, dict[str, float]]:
    """Least, mean, greatest and deviation of each score over the candidates."""
    objectives = [line["objectives"] for line in lines if line["status"] == "ok"]
    found = scores(np.asarray(objectives, np.float64), settings)
    return {
        name: {
            "least": float(column.min()),
            "mean": float(column.mean()),
            "greatest": float(column.max()),
            "std": float(column.std()),
        }
        for name, column in zip(SCORES, found.T, strict=True)
    }


def saturated(spread: dict[str, dict[str, float]]) -> list[str]:
    """The scores that are the same for all candidates."""
    return [name for name, s in spread.items() if s["least"] == s["greatest"]]
