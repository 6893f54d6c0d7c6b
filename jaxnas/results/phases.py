"""Results of the phases after the first, and what was chosen for them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxnas.results.result import Result, Scored, scored


class Chosen(NamedTuple):
    """Results whose candidates go on to the next phase."""

    promoted: list[Scored]  # the fittest first, then by rank
    lucky: list[Scored]  # drawn at random from the others

    @property
    def every(self) -> list[Scored]:
        """Both."""
        return [*self.promoted, *self.lucky]

    def among(self, results: Iterable[Result]) -> "Chosen":
        """Those whose candidates have one of these results."""
        ids = {result.id for result in results}
        parts = ([result for result in part if result.id in ids] for part in self)
        return Chosen(*parts)


class PhaseResult(NamedTuple):
    """A phase after the first."""

    name: str
    chosen: Chosen  # results of the phase before, of those that were trained in this
    results: list[Result]  # of this phase


def finalists(
    results: Sequence[Result], phases: Sequence[PhaseResult]
) -> tuple[int, list[Result]]:
    """The last phase in which a candidate succeeded, by number, and its results."""
    for rung, phase in reversed([*enumerate(phases, 1)]):
        if scored(phase.results):
            return rung, phase.results
    return 0, list(results)


def last_of(later: Sequence[Result], results: Sequence[Result]) -> list[Result]:
    """The finalists of a run as it was read: the last phase in which one succeeded.

    Args:
      later: results of the phases after the first.
      results: of the first.
    """
    names = [result.phase for result in scored(later)]
    return [one for one in later if one.phase == names[-1]] if names else list(results)
