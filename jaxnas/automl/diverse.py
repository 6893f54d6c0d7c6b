"""Answers that differ: the best without near-copies, a front without what is alike."""

import math

import numpy as np

from jaxnas.analytic.limits import Limit
from jaxnas.automl.problem import Candidates, Problem

# Nearer than this, two shapes are copies: the root of the summed squares of the
# logarithms of how often they differ, in shape and objectives.
NEAR = 0.25
# Numbers of heads at the same width and predicted loss matter less than the rest.
_HEADS_WEIGHT = 0.3
SAME_COST = 0.02  # a share of parameters, latency, memory that is no difference
AT_LIMIT = 0.01  # as near to a limit as this share of it, a shape touches it


def best_rows(
    problem: Problem, candidates: Candidates, scores: np.ndarray, top: int, alike: bool
) -> np.ndarray:
    """i64[at most top], the best by score, best first.

    Args:
      problem: see `Problem`.
      candidates: that keep the limits.
      scores: f64[N].
      top: how many, at most.
      alike: near-copies too.
    """
    order = np.lexsort((*candidates.genomes.T[::-1], -scores))
    if alike or len(order) <= 1:
        return order[:top]
    places = _places(problem, candidates)
    left = np.ones(len(order), bool)
    rows: list[int] = []
    start = 0
    while len(rows) < top:
        while start < len(order) and not left[order[start]]:
            start += 1
        if start == len(order):
            break
        row = int(order[start])
        rows.append(row)
        near = np.square(places - places[row]).sum(axis=1) < NEAR**2
        left &= ~near
        left[row] = False
    return np.asarray(rows, np.int64)


def thinned_front(
    problem: Problem, front: Candidates, scores: np.ndarray
) -> np.ndarray:
    """i64[K], rows of a front that its figures tell apart, by the first objective.

    From the best score on, a kept shape stands for all that cost no less than it, but
    for SAME_COST, and are not predicted better by more than the law's uncertainty.
    """
    logs = np.log(problem.table(front))
    loss = problem.spec.use.uncertainty
    slack = np.asarray(
        [loss if name == "loss" else math.log1p(SAME_COST) for name in problem.aims]
    )
    left = np.ones(len(logs), bool)
    kept: list[int] = []
    for row in np.lexsort((*front.genomes.T[::-1], -scores)):
        if left[row]:
            kept.append(int(row))
            left &= ~(logs >= logs[row] - slack).all(axis=1)
    return np.asarray(sorted(kept, key=lambda row: tuple(logs[row])), np.int64)


def touched(limits: tuple[Limit, ...], candidates: Candidates, row: int) -> list[str]:
    """The objectives whose limit a shape is at."""
    return [
        limit.objective
        for limit in limits
        if any(
            math.isfinite(bound)
            and abs(candidates.values[limit.objective][row] - bound)
            <= AT_LIMIT * abs(bound)
            for bound in (limit.least, limit.most)
        )
    ]


def _places(problem: Problem, candidates: Candidates) -> np.ndarray:
    """f64[N, ...], where distances are those of `NEAR`."""
    sizes = problem.shapes.sizes(candidates.genomes)
    columns = [
        np.log(sizes.hidden),
        np.log(sizes.layers),
        np.log(sizes.inner / sizes.hidden),
        _HEADS_WEIGHT * np.log(sizes.heads),
        _HEADS_WEIGHT * np.log(sizes.kv_heads),
    ]
    for name in problem.aims:
        weight = NEAR / problem.spec.use.uncertainty if name == "loss" else 1.0
        columns.append(weight * np.log(candidates.values[name]))
    shape = (len(candidates.genomes),)
    return np.stack([np.broadcast_to(column, shape) for column in columns], axis=1)
