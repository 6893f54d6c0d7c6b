"""Bounds on objectives, and which of them is in the way."""

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NamedTuple, TypeVar

import jax
import numpy as np

Column = TypeVar("Column", np.ndarray, jax.Array)

_LEAST = 1e-12  # that a limit counts as, where what is missed is a share of it


class Limit(NamedTuple):
    """An objective's allowed range, both ends included."""

    objective: str
    least: float = -math.inf
    most: float = math.inf

    def __str__(self) -> str:
        ends = (self.least, ">="), (self.most, "<=")
        return " and ".join(
            f"{self.objective} {sign} {value:g}"
            for value, sign in ends
            if math.isfinite(value)
        )


class Binding(NamedTuple):
    """How one limit is met."""

    limit: Limit
    met: int  # candidates that keep it
    closest: float  # nearest to the limit, of those that keep it if there are any


def violation(
    limits: Sequence[Limit], values: Mapping[str, Column], xp: ModuleType = np
) -> Column:
    """By how much each candidate breaks limits; 0 where it keeps them all.

    The sum over the limits of what is too much or too little, as a share of the
    limit.

    Args:
      limits: see `Limit`.
      values: of each objective, columns.
      xp: numpy, or jax.numpy for columns of jax.Arrays.
    """
    total = xp.zeros(())
    for limit in limits:
        value = values[limit.objective]
        for bound, sign in ((limit.most, 1.0), (limit.least, -1.0)):
            if math.isfinite(bound):
                missed = sign * (value - bound) / max(abs(bound), _LEAST)
                total = total + xp.maximum(missed, 0.0)
    return total


def bindings(
    limits: Sequence[Limit], values: Mapping[str, np.ndarray]
) -> list[Binding]:
    """Each limit alone, the least often kept first."""
    found = []
    for limit in limits:
        value = values[limit.objective]
        distance = np.maximum(value - limit.most, limit.least - value)
        kept = distance <= 0
        nearest = (
            np.where(kept, distance, -np.inf).argmax()
            if kept.any()
            else distance.argmin()
        )
        found.append(
            Binding(
                limit=limit,
                met=int(kept.sum()),
                closest=float(value.flat[nearest]),
            )
        )
    return sorted(found, key=lambda binding: binding.met)
