"""How much each score tells the candidates apart: an objective must not saturate."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from jaxnas.evaluation.fitness import OBJECTIVES, FitnessSettings, scores
from jaxnas.results.result import Result, scored

SCORES = ("accuracy", "size", "latency")

Spread: TypeAlias = dict[str, dict[str, float]]  # name -> least, mean, greatest, std


def score_spread(results: Iterable[Result], settings: FitnessSettings) -> Spread:
    """Least, mean, greatest and deviation of each score over the candidates."""
    objectives = [result.objectives for result in scored(results)]
    values = scores(np.asarray(objectives, np.float64), settings)
    return _spread(SCORES, np.asarray(values))


def objective_spread(results: Iterable[Result], extra: Sequence[str] = ()) -> Spread:
    """The same of each objective, ours and the user's, by name and in their order."""
    objectives = [result.objectives for result in scored(results)]
    return _spread([*OBJECTIVES, *extra], np.asarray(objectives, np.float64))


def _spread(names: Sequence[str], values: np.ndarray) -> Spread:
    return {
        name: {
            "least": float(column.min()),
            "mean": float(column.mean()),
            "greatest": float(column.max()),
            "std": float(column.std()),
        }
        for name, column in zip(names, values.T, strict=True)
    }


def saturated(spread: Spread) -> list[str]:
    """The scores that are the same for all candidates."""
    return [name for name, s in spread.items() if s["least"] == s["greatest"]]
