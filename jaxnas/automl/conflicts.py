"""Why nothing keeps all limits: the fewest that conflict, and what each would need."""

import itertools
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from jaxnas.analytic.limits import Limit


class Move(NamedTuple):
    """One bound of a conflict, and what it would have to be."""

    limit: Limit  # one end is infinite
    alone: float | None  # all else kept, the whole spec's; None if that is not enough
    within: float  # only the conflict's other bounds kept


class Conflict(NamedTuple):
    """The fewest bounds that no shape keeps together."""

    moves: tuple[Move, ...]  # in the order of the limits
    others: int  # other sets of as few bounds that conflict too

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The bounds."""
        return tuple(move.limit for move in self.moves)


def conflict_of(
    limits: Sequence[Limit], values: Mapping[str, np.ndarray]
) -> Conflict | None:
    """The smallest set of bounds that conflict, exactly, over some shapes.

    A limit with two ends is two bounds. Of several smallest sets it is the first in
    the order of the limits.

    Args:
      limits: see `Limit`.
      values: each objective's column f64[N], N at least 1.

    Returns:
      None if a shape keeps all limits.
    """
    bounds = _one_sided(limits)
    broken = np.zeros(np.shape(next(iter(values.values()))), np.int64)
    for index, bound in enumerate(bounds):
        value = values[bound.objective]
        out = (value > bound.most) | (value < bound.least)
        broken |= out.astype(np.int64) << index
    kinds = np.unique(broken)
    if kinds[0] == 0:
        return None
    for size in range(1, len(bounds) + 1):
        sets = [
            chosen
            for chosen in itertools.combinations(range(len(bounds)), size)
            if ((kinds & sum(1 << index for index in chosen)) != 0).all()
        ]
        if sets:
            break
    first = sets[0]
    together = sum(1 << index for index in first)
    everything = (1 << len(bounds)) - 1
    moves = []
    for index in first:
        column = values[bounds[index].objective]
        alone = (broken & (everything & ~(1 << index))) == 0
        within = (broken & (together & ~(1 << index))) == 0
        moves.append(
            Move(
                limit=bounds[index],
                alone=_needed(bounds[index], column[alone]) if alone.any() else None,
                within=_needed(bounds[index], column[within]),
            )
        )
    return Conflict(tuple(moves), len(sets) - 1)


def describe(conflict: Conflict) -> str:
    """What conflicts and what each bound would have to be, for a line."""
    moves = conflict.moves
    if len(moves) == 1:
        [move] = moves
        needed = _outward(move.limit, move.within)
        return f"no shape keeps {move.limit}: it would have to be {needed}"
    named = " and ".join(str(move.limit) for move in moves)
    needs = [
        f"{move.limit.objective} would have to be {_outward(move.limit, move.within)}"
        + ("" if move.alone == move.within else _beside(move))
        for move in moves
    ]
    return f"no shape keeps {named} together: alone, {', or '.join(needs)}"


def _beside(move: Move) -> str:
    if move.alone is None:
        return " and other limits would still be broken"
    return f", {_outward(move.limit, move.alone)} with all other limits"


def _outward(bound: Limit, value: float) -> str:
    """Six digits that would do as this bound: the value keeps them."""
    rounded = Decimal(f"{value:.6g}")
    step = Decimal(10) ** (rounded.adjusted() - 5)
    if math.isfinite(bound.most) and float(rounded) < value:
        rounded += step
    elif math.isfinite(bound.least) and float(rounded) > value:
        rounded -= step
    return f"{float(rounded):,.6g}"


def _one_sided(limits: Sequence[Limit]) -> list[Limit]:
    bounds = []
    for limit in limits:
        if math.isfinite(limit.most):
            bounds.append(Limit(limit.objective, most=limit.most))
        if math.isfinite(limit.least):
            bounds.append(Limit(limit.objective, least=limit.least))
    return bounds


def _needed(bound: Limit, column: np.ndarray) -> float:
    """The value that is nearest to the bound's range."""
    return float(column.min() if math.isfinite(bound.most) else column.max())
