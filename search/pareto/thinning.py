"""A front as a list of which every beginning is spread along it."""

import numpy as np


def spread_order(objectives: np.ndarray, number: int | None = None) -> np.ndarray:
    """The farthest point first (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5).

    It begins with the lowest value of the first objective. Each next row is the one
    farthest from all before it, each objective scaled to [0, 1]; so the first K are
    at most twice as far from any row as the K best chosen. Takes O(N M) for each.

    Args:
      objectives: f[N, M], finite, minimised.
      number: how many to order; all if None or more than N.

    Returns:
      i64[number], row numbers, each once; of equal rows all but the first come last.

    Raises:
      ValueError: a value is not finite.
    """
    rows = np.asarray(objectives, float)
    if not np.isfinite(rows).all():
        raise ValueError("objectives must be finite")
    count = len(rows) if number is None else min(number, len(rows))
    if not count:
        return np.zeros(0, np.int64)
    low = rows.min(axis=0)
    width = rows.max(axis=0) - low
    scaled = (rows - low) / np.where(width > 0, width, 1.0)
    order = [int(np.lexsort(rows.T[::-1])[0])]
    distance = np.full(len(rows), np.inf)
    for _ in range(1, count):
        to_last = np.square(scaled - scaled[order[-1]]).sum(axis=1)
        distance = np.minimum(distance, to_last)
        distance[order] = -1.0
        order.append(int(distance.argmax()))
    return np.asarray(order)
