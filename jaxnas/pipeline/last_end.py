"""When a last training ends: as it was planned, or as the clock moves it."""

import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

from jaxnas.clock import TRAINING_ENDS, Clock
from jaxnas.config import Settings

_LONGER = 2  # times the winner's last steps, that they may still become
_OFF = 0.04  # share by which a last training may miss its end before it is moved
# Share of its steps after which none are added: the learning rate would rise again.
_ADDED_UNTIL = 0.75
_LATELY = 10  # calls that a step's seconds are known from


class Fixed(NamedTuple):
    """A training that ends as it was planned; see `jaxnas.pipeline.winner.End`."""

    steps: int

    @property
    def most(self) -> int:
        """As planned."""
        return self.steps

    @property
    def now(self) -> int:
        """As planned."""
        return self.steps

    def at(self, done: int) -> int:
        """As planned."""
        del done
        return self.steps

    def ended(self, done: int) -> None:
        """Nothing is recorded."""


def enough_by(
    clock: Clock, name: str, ends: float = TRAINING_ENDS
) -> Callable[[int], bool]:
    """Whether a training ends after so many steps, by a share of the budget.

    The number is recorded under the name: a resume ends there too.
    """

    def enough(done: int) -> bool:
        ended = clock.decided(name, int)
        if ended is None and clock.late(ends):
            ended = clock.decide(name, done)
        return ended is not None and done >= ended

    return enough


class Moving:
    """When a last training ends: as planned, moved if the time needs it.

    Steps may take longer than they were measured, or less long. Each move is
    recorded, with the step at which it was made, and made there again by a resume.
    """

    def __init__(
        self,
        clock: Clock,
        name: str,
        steps: int,
        most: int,
        target: Callable[[], int] | None = None,
        ends: float = TRAINING_ENDS,
    ) -> None:
        """Ends by a share of the budget.

        Args:
          clock: of the budget.
          name: under which moves are recorded.
          steps: as planned.
          most: that windows are drawn for.
          target: steps that are wanted, if there is time; by default `most`.
          ends: the share.
        """
        self._ends = ends
        self.steps, self.most, self.now = steps, most, steps
        self._clock, self._name = clock, name
        self._target = target or (lambda: most)
        self._times: list[tuple[int, float]] = []
        self._readings = 0

    def at(self, done: int) -> int:
        """At which step the training ends, as far as known after so many."""
        self.now = self._at(done)
        return self.now

    def ended(self, done: int) -> None:
        """Records that it has ended: a resume moves nothing more."""
        self._clock.decide(f"{self._name} ended", done)

    def _at(self, done: int) -> int:
        end = self.steps
        for number in itertools.count(1):
            name = f"{self._name} moved {number}"
            if (moved := self._clock.decided(name, tuple[int, int])) is None:
                break
            if done < moved[0]:
                return end
            end = moved[1]
        if self._clock.decided(f"{self._name} ended", int) is not None:
            return end
        self._readings += 1
        if self._readings == 2:  # what came before held the first call, which compiles
            self._times = []
        self._times = [*self._times[-_LATELY:], (done, time.monotonic())]
        other = self._other(end)
        return end if other is None else self._clock.decide(name, [done, other])[1]

    def _other(self, end: int) -> int | None:
        """At which other step it has to end, if the one decided is wrong."""
        (first, began), (done, now) = self._times[0], self._times[-1]
        left = self._clock.left(self._ends)
        if left <= 0:
            return done if done < end else None
        if done == first:
            return None
        fits = done + int(left * (done - first) / (now - began))
        other = max(done, min(self.most, fits, self._target()))
        late = done >= _ADDED_UNTIL * end
        if abs(other - end) <= _OFF * end or (other > end and late):
            return None
        return other


def last_end(config: Settings, clock: Clock, steps: int) -> Fixed | Moving:
    """When the winner's last training ends; `steps` as by `last_steps`."""
    if not clock.plans("final_steps"):
        return Fixed(steps)
    most = _LONGER * steps
    return Moving(clock, "final_steps", steps, most)
