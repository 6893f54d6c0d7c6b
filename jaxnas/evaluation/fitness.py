"""Objectives, which are minimised, and the weighted fitness, which is maximised.

The only place that knows both.
"""

import dataclasses
from collections.abc import Sequence
from types import ModuleType
from typing import TypeAlias

import jax
import numpy as np

Array: TypeAlias = np.ndarray | jax.Array

OBJECTIVES = ("1 - accuracy", "size in MiB", "latency in ms")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitnessSettings:
    """Weights of the three scores, and where they bend.

    Raises:
      ValueError: a negative weight or target, weights that are all zero, or a
        size limit that is not above the target; one that is not finite.
    """

    accuracy_weight: float = 0.5
    size_weight: float = 0.3
    latency_weight: float = 0.2
    size_target: float = 100.0  # MiB; the size score is 1 up to here,
    size_limit: float = 500.0  # and 0 from here on
    latency_target: float = 10.0  # ms; the latency score is 1 up to here

    def __post_init__(self) -> None:
        for name in ("accuracy_weight", "size_weight", "latency_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0")
        if self.accuracy_weight + self.size_weight + self.latency_weight == 0:
            raise ValueError("accuracy, size and latency weight are all 0")
        for name in ("size_target", "latency_target"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if not self.size_target < self.size_limit < float("inf"):
            raise ValueError(
                f"size_limit={self.size_limit} must be finite and above "
                f"size_target={self.size_target}"
            )


def deciding(settings: FitnessSettings, objectives: int) -> tuple[int, ...]:
    """Which objectives guide a search: ours that have a weight, then the user's.

    Args:
      settings: where only accuracy has a weight, size and latency are what the limits
        allow, and no aim.
      objectives: how many a candidate has.
    """
    ours = len(OBJECTIVES)
    alone = settings.size_weight == 0 == settings.latency_weight
    return (*range(1 if alone else ours), *range(ours, objectives))


def objectives_of(accuracy: float, size: float, latency: float) -> list[float]:
    """[1 - accuracy, MiB, ms], all minimised."""
    return [1 - accuracy, size, latency]


def scores(objectives: Array, settings: FitnessSettings, xp: ModuleType = np) -> Array:
    """The three scores of [..., 3] objectives, each in [0, 1], higher is better.

    Accuracy is its own score. Size falls in a line from 1 at the target to 0
    at the limit. Latency is target / latency beyond the target.

    Args:
      objectives: [..., 3], NumPy or JAX.
      settings: where the scores bend.
      xp: `numpy`, or `jax.numpy` inside a jitted function.

    Returns:
      [..., 3]; NaN where the objective is.
    """
    slope = settings.size_limit - settings.size_target
    size = (settings.size_limit - objectives[..., 1]) / slope
    latency = settings.latency_target / objectives[..., 2]
    return xp.stack(
        [1 - objectives[..., 0], xp.clip(size, 0, 1), xp.clip(latency, 0, 1)], axis=-1
    )


def fitness(objectives: Array, settings: FitnessSettings, xp: ModuleType = np) -> Array:
    """The weighted sum of the scores: [..., 3] -> [...], higher is better."""
    score = scores(objectives, settings, xp)
    return (
        settings.accuracy_weight * score[..., 0]
        + settings.size_weight * score[..., 1]
        + settings.latency_weight * score[..., 2]
    )


def fitness_of(objectives: Sequence[float], settings: FitnessSettings) -> float:
    """`fitness` of one candidate's objectives, in double precision."""
    return float(fitness(np.asarray(objectives, np.float64), settings))
