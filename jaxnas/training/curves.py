"""Learning curves: kept as a few points, and drawn on to where a training ends."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from scipy.optimize import nnls

# (step, mean loss around it in nats per token), by step.
Curve: TypeAlias = tuple[tuple[int, float], ...]

_POINTS = 8
# Fitted to each curve it would follow noise; this one suits, see
# experiments/equal_time.
EXPONENT = 0.4


def points_of(losses: np.ndarray, begin: int) -> Curve:
    """A curve of means over stretches of equal length.

    Args:
      losses: f32[steps], of consecutive steps.
      begin: the first one's number.
    """
    parts = np.array_split(losses.astype(np.float64), min(_POINTS, len(losses)) or 1)
    points, at = [], begin
    for part in parts:
        if len(part) and np.isfinite(part).all():
            points.append((at + len(part) // 2, round(float(part.mean()), 6)))
        at += len(part)
    return tuple(points)


def extrapolated(
    curve: Sequence[tuple[int, float]], step: float, exponent: float = EXPONENT
) -> float:
    """The loss at a later step, if the curve goes on as it began.

    A floor and a power of the steps, as learning curves follow (Domhan et al.
    2015, ijcai.org/Proceedings/15/Papers/487.pdf), whose exponent is set, fitted to
    the squared error with neither below zero.

    Raises:
      ValueError: fewer than two points.
    """
    if len(curve) < 2:
        raise ValueError(f"a curve needs at least 2 points, got {len(curve)}")
    steps, losses = np.asarray(curve, np.float64).T
    powers = np.stack([np.ones_like(steps), (steps + 1) ** -exponent], axis=1)
    (floor, scale), _ = nnls(powers, losses)
    return float(floor + scale * (step + 1) ** -exponent)
