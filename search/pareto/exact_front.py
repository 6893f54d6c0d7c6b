"""The exact Pareto front of many points that are already scored, on the host."""

import bisect

import numpy as np


def exact_front(objectives: np.ndarray) -> np.ndarray:
    """Finds the non-dominated rows; of equal ones all are on the front.

    For up to three objectives N log N (Kung, Luccio and Preparata 1975,
    doi:10.1145/321906.321910), for more N F with a front of F.

    Args:
      objectives: f[N, M], minimised; a row that is not finite has failed.

    Returns:
      i64[F], row numbers in ascending order.
    """
    rows = np.flatnonzero(np.isfinite(objectives).all(axis=1))
    if not len(rows):
        return rows
    # Only the order within each objective matters.
    ranks = np.stack(
        [np.unique(column, return_inverse=True)[1] for column in objectives[rows].T]
    )
    order = np.lexsort(ranks[::-1])
    ordered = ranks[:, order].T
    first = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
    distinct = ordered[first]
    sweep = _sweep if distinct.shape[1] <= 3 else _filter
    return np.sort(rows[order[sweep(distinct)[np.cumsum(first) - 1]]])


def _sweep(points: np.ndarray) -> np.ndarray:
    """i[N, M <= 3], distinct rows in lexical order -> bool[N]: the front.

    A row can be dominated by earlier ones only. Of those it keeps the staircase
    of the last two objectives: the one rises as the other falls.
    """
    most = len(points)
    lacking = np.zeros((most, 3 - points.shape[1]), int)
    front = np.zeros(most, bool)
    rising: list[int] = []
    falling: list[int] = []
    _, second, third = np.hstack([points, lacking]).T.tolist()
    for index, (y, z) in enumerate(zip(second, third, strict=True)):
        place = bisect.bisect_right(rising, y)
        if place and falling[place - 1] <= z:
            continue
        front[index] = True
        begin = bisect.bisect_left(rising, y)
        end = begin
        while end < len(rising) and falling[end] >= z:
            end += 1
        rising[begin:end], falling[begin:end] = [y], [z]
    return front


def _filter(points: np.ndarray) -> np.ndarray:
    """i[N, M], distinct rows -> bool[N]: the front.

    Sort, filter, repeat (Chomicki et al. 2003, doi:10.1109/ICDE.2003.1260846): in
    the order of a sum that grows with every objective the first row that is left
    is on the front, and takes away all that it dominates.
    """
    left = np.argsort(points.sum(axis=1), kind="stable")
    front = np.zeros(len(points), bool)
    while len(left):
        front[left[0]] = True
        left = left[(points[left] < points[left[0]]).any(axis=1)]
    return front
