"""How much each score tells the candidates apart: an objective must not saturate."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnas.evaluation.fitness import OBJECTIVES, FitnessSettings, scores
from search.pareto.exact_front import exact_front

SCORES = ("accuracy", "size", "latency")


def score_spread(
    lines: list[dict[str, Any]], settings: FitnessSettings
) -> dict[str, dict[str, float]]:
    """Least, mean, greatest and deviation of each score over the candidates."""
    objectives = [line["objectives"] for line in lines if line["status"] == "ok"]
    return _spread(SCORES, scores(np.asarray(objectives, np.float64), settings))


def objective_spread(
    lines: list[dict[str, Any]], extra: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """The same of each objective, ours and the user's, by name and in their order."""
    objectives = [line["objectives"] for line in lines if line["status"] == "ok"]
    return _spread([*OBJECTIVES, *extra], np.asarray(objectives, np.float64))


def front_of(lines: list[dict[str, Any]]) -> list[int]:
    """The ids of the candidates that no other dominates, over all objectives."""
    scored = [line for line in lines if line["status"] == "ok"]
    objectives = np.asarray([line["objectives"] for line in scored], np.float64)
    return [scored[at]["id"] for at in exact_front(objectives)]


def _spread(names: Sequence[str], values: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        name: {
            "least": float(column.min()),
            "mean": float(column.mean()),
            "greatest": float(column.max()),
            "std": float(column.std()),
        }
        for name, column in zip(names, values.T, strict=True)
    }


def saturated(spread: dict[str, dict[str, float]]) -> list[str]:
    """The scores that are the same for all candidates."""
    return [name for name, s in spread.items() if s["least"] == s["greatest"]]
