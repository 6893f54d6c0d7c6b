"""Who goes on to the next phase: the least dominated, the least crowded, the best.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) with several
objectives: Deb et al. 2002, doi:10.1109/4235.996017, order the candidates.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from search.pareto.crowding import crowded_order

Line: TypeAlias = dict[str, Any]  # of results.jsonl or rungs.jsonl

FEWEST = 3  # a closing table has as many, if that many succeeded

_order = jax.jit(crowded_order)


class Chosen(NamedTuple):
    """Lines that go on."""

    promoted: list[Line]  # the fittest first, then by rank
    lucky: list[Line]  # drawn from the others

    @property
    def every(self) -> list[Line]:
        """Both."""
        return [*self.promoted, *self.lucky]

    def among(self, lines: Iterable[Line]) -> "Chosen":
        """Those of them whose candidates have a line here."""
        there = {line["id"] for line in lines}
        parts = ([one for one in part if one["id"] in there] for part in self)
        return Chosen(*parts)


def number_promoted(candidates: int, share: float) -> int:
    """How many of a phase's candidates the next one takes."""
    return min(candidates, max(FEWEST, math.ceil(share * candidates)))


def choose(
    lines: Iterable[Line],
    number: int,
    lucky: int,
    seed: int,
    objectives: Callable[[Line], Sequence[float]] = lambda line: line["objectives"],
) -> Chosen:
    """The lines that go on.

    Args:
      lines: those that failed are never chosen.
      number: by non-dominated rank, then crowding distance, then the first
        objective (both ends of each objective are equally uncrowded, and few may
        go on), then id; before them all the greatest fitness, for it would win.
      lucky: of those not among them, at random.
      seed: decides who is lucky; the same candidates are whatever else comes.
      objectives: of a line, minimised.
    """
    ok = [line for line in lines if line["status"] == "ok"]
    if not ok:
        return Chosen([], [])
    told = [(objectives(line), line) for line in ok]
    told.sort(key=lambda one: (one[0][0], one[1]["id"]))
    ok = [line for _, line in told]
    # Padded with failures to a power of two: few sizes are compiled.
    rows = np.asarray([values for values, _ in told], np.float32)
    table = np.full((1 << (len(ok) - 1).bit_length(), rows.shape[1]), np.nan)
    table[: len(ok)] = rows
    order = np.asarray(_order(jnp.asarray(table, jnp.float32)))
    ranked = [ok[at] for at in order if at < len(ok)]
    fittest = max(ok, key=lambda line: line["fitness"])
    ranked.remove(fittest)
    ranked.insert(0, fittest)
    rest = sorted(ranked[number:], key=lambda line: _lot(seed, line["id"]))
    return Chosen(ranked[:number], rest[:lucky])


def _lot(seed: int, identity: int) -> str:
    return hashlib.sha256(f"{seed} {identity}".encode()).hexdigest()


class Pool:
    """Who can still be promoted while a search goes on.

    A candidate that drops out does not come back, so that what it would go on
    from need not be kept.
    """

    def __init__(
        self,
        number: int,
        lucky: int,
        seed: int,
        objectives: Callable[[Line], Sequence[float]],
    ):
        """Arguments as for `choose`."""
        self._rule = number, lucky, seed, objectives
        self._generations = 0
        self.lines: list[Line] = []

    def read(self, lines: Sequence[Line]):
        """Enters the new candidates of the generations it has not seen."""
        last = max((line["generation"] for line in lines), default=-1)
        for generation in range(self._generations, last + 1):
            new = [line for line in lines if line["generation"] == generation]
            self.lines = choose([*self.lines, *new], *self._rule).every
        self._generations = max(self._generations, last + 1)
