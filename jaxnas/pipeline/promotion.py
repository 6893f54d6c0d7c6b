"""Which go on to the next phase: the least dominated, the least crowded, the best.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) with several
objectives: Deb et al. 2002, doi:10.1109/4235.996017, order the candidates.
"""

import hashlib
import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.results.phases import Chosen
from jaxnas.results.result import Result, Scored, scored
from search.pareto.crowding import crowded_order

FEWEST = 3  # a closing table has as many, if that many succeeded

_order = jax.jit(crowded_order)


def number_promoted(candidates: int, share: float) -> int:
    """How many of a phase's candidates the next one takes."""
    return min(candidates, max(FEWEST, math.ceil(share * candidates)))


def choose(
    results: Iterable[Result],
    number: int,
    lucky: int,
    seed: int,
    objectives: Callable[[Scored], Sequence[float]] = lambda result: result.objectives,
    worth: Callable[[Scored], float] = lambda result: result.fitness,
    alike: Callable[[Scored], Hashable] = lambda result: result.id,
) -> Chosen:
    """The results whose candidates go on.

    Args:
      results: those that failed are never chosen.
      number: by non-dominated rank, then crowding distance, then the first
        objective (both ends of each objective are equally uncrowded, and few may
        go on), then id; before them all the one that is worth the most, for it would
        win.
      lucky: of those not among them, at random.
      seed: decides which are drawn at random, whatever else comes.
      objectives: of a result, minimised.
      worth: of a result; by default its fitness.
      alike: of those with the same, the one that is worth the most stands for all.
    """
    found: dict[Hashable, Scored] = {}
    for result in sorted(scored(results), key=lambda one: (-worth(one), one.id)):
        found.setdefault(alike(result), result)
    ok = list(found.values())
    if not ok:
        return Chosen([], [])
    told = [(objectives(result), result) for result in ok]
    told.sort(key=lambda pair: (pair[0][0], pair[1].id))
    ok = [result for _, result in told]
    # Padded with failures to a power of two: few sizes are compiled.
    rows = np.asarray([values for values, _ in told], np.float32)
    table = np.full((1 << (len(ok) - 1).bit_length(), rows.shape[1]), np.nan)
    table[: len(ok)] = rows
    order = np.asarray(_order(jnp.asarray(table, jnp.float32)))
    ranked = [ok[index] for index in order if index < len(ok)]
    best = max(ok, key=worth)
    ranked.remove(best)
    ranked.insert(0, best)
    rest = sorted(ranked[number:], key=lambda result: _lot(seed, result.id))
    return Chosen(ranked[:number], rest[:lucky])


def _lot(seed: int, identity: int) -> str:
    return hashlib.sha256(f"{seed} {identity}".encode()).hexdigest()


class Pool:
    """Which can still be promoted while a search goes on.

    A candidate that drops out does not come back, so that what it would go on
    from need not be kept.
    """

    def __init__(
        self,
        number: Callable[[int], int],
        lucky: int,
        seed: int,
        objectives: Callable[[Scored], Sequence[float]],
        worth: Callable[[Scored], float] = lambda result: result.fitness,
        alike: Callable[[Scored], Hashable] = lambda result: result.id,
    ) -> None:
        """Arguments as for `choose`, but `number`, told how many have succeeded."""
        self._number = number
        self._rule = lucky, seed, objectives, worth, alike
        self._generations = 0
        self.results: list[Scored] = []

    def read(self, results: Sequence[Result]) -> None:
        """Enters the new candidates of the generations it has not seen."""
        last = max((result.generation for result in results), default=-1)
        for generation in range(self._generations, last + 1):
            known = [one for one in scored(results) if one.generation <= generation]
            new = [result for result in known if result.generation == generation]
            number = self._number(len(known))
            self.results = choose([*self.results, *new], number, *self._rule).every
        self._generations = max(self._generations, last + 1)
