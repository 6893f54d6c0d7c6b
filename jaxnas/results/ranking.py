"""Which results are best, and which are on the Pareto front."""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxnas.results.result import Result, Scored, scored
from search.pareto.exact_front import exact_front


def top_results(
    results: Iterable[Result], number: int, first: int | None = None
) -> list[Scored]:
    """The best by fitness, the older first of equals; before them all the `first`."""
    ranked = sorted(
        scored(results),
        key=lambda result: (result.id != first, -result.fitness, result.id),
    )
    return ranked[:number]


def winner_of(finalists: Sequence[Result], decided: int | None) -> Scored | None:
    """The finalist of that id, if a clock has decided it; else the best.

    None if none has succeeded.
    """
    return next(iter(top_results(finalists, 1, decided)), None)


def front_of(results: Iterable[Result], number: int | None = None) -> list[int]:
    """The ids of the candidates that no other dominates.

    Args:
      results: of one phase.
      number: of objectives that count, the first ones; all by default.
    """
    successes = scored(results)
    objectives = np.asarray(
        [result.objectives[:number] for result in successes], np.float64
    )
    return [successes[index].id for index in exact_front(objectives)]


def by_family(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Family -> its results, in the order in which the families come."""
    families: dict[str, list[Result]] = {}
    for result in results:
        families.setdefault(result.config.arch_type, []).append(result)
    return families
