"""When a search ends before its last generation: it has what it looked for.

Decided from the results of its generations alone, so that a resume decides the same.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxnas.results.result import Result, Scored, scored
from jaxnas.targets import Target


def generations_of(results: Iterable[Result], number: int) -> list[list[Result]]:
    """The first `number` generations, each with its new candidates; some have none."""
    generations: list[list[Result]] = [[] for _ in range(number)]
    for result in results:
        if result.generation < number:
            generations[result.generation].append(result)
    return generations


def why_ended(
    generations: Sequence[Sequence[Result]],
    *,
    patience: int | None,
    targets: Sequence[Target],
    front: bool,
) -> str | None:
    """Why no further generation is asked for, None if one is.

    Args:
      generations: the new candidates of each that is done.
      patience: generations in a row without progress after which it ends.
      targets: what one candidate has to reach, all of them; none if empty.
      front: whether a larger front is progress too; see `stale`.
    """
    found = reached((one for each in generations for one in each), targets)
    if found is not None:
        words = ", ".join(map(str, targets))
        return f"candidate {found.id} reaches {words}"
    if patience is not None and stale(generations, front) >= patience:
        without = "a better winner" + (" or a larger front" if front else "")
        return f"{patience} in a row without {without}"
    return None


def reached(results: Iterable[Result], targets: Sequence[Target]) -> Scored | None:
    """The first candidate that reaches every target; None where there is none."""
    for result in scored(results):
        if targets and all(one.met(value_of(result, one.metric)) for one in targets):
            return result
    return None


def value_of(result: Scored, metric: str) -> float:
    """A metric in `jaxnas.targets.METRICS`."""
    return result.fitness if metric == "fitness" else getattr(result.metrics, metric)


def stale(generations: Sequence[Sequence[Result]], front: bool) -> int:
    """Generations since the last one that made progress, all if none did.

    Progress is a greater fitness than any before. With `front` it is also a
    candidate that none before equals or beats in every objective: with it, and only
    with it, the hypervolume of the front grows, whatever the reference point, as
    long as that lies beyond all candidates.
    """
    best, last = -np.inf, 0
    known: np.ndarray | None = None  # f64[N, M], objectives of all before
    for number, generation in enumerate(generations, 1):
        successes = scored(generation)
        if not successes:
            continue
        fittest = max(result.fitness for result in successes)
        rows = np.asarray([result.objectives for result in successes], np.float64)
        if fittest > best or (front and _grows(known, rows)):
            last = number
        best = max(best, fittest)
        known = rows if known is None else np.concatenate([known, rows])
    return len(generations) - last


def _grows(known: np.ndarray | None, rows: np.ndarray) -> bool:
    """Whether a row is not equalled or beaten by any that is known."""
    if known is None:
        return True
    beaten = (known[:, None] <= rows[None]).all(axis=-1).any(axis=0)
    return not beaten.all()
