"""Rank correlation (Spearman 1904), where it has a value."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr


def spearman(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    least: int = 2,
) -> float | None:
    """Spearman's rank correlation of paired values.

    Args:
      first: one side of each pair.
      second: the other.
      least: pairs that it takes.

    Returns:
      In [-1, 1]; None where there are fewer pairs or a side is constant.
    """
    constant = min(len(np.unique(side)) for side in (first, second)) < 2
    if len(first) < least or constant:
        return None
    return float(spearmanr(first, second).statistic)
