"""The clock of a budget: what is spent, and when each part of a run must stop.

Decisions that the clock makes are recorded as they are made, and a resume takes
them over, so that it ends with the same bytes.
"""

import math
import re
import threading
import time
from pathlib import Path
from typing import Any, Final, TypedDict

from jaxnas.errors import UsageError
from jaxnas.storage.files import write_json
from jaxnas.storage.jsonl import Json
from jaxnas.storage.kinds import misfit, read_kept

# By which share of the budget each part ends. What one leaves the next one has; the
# last share is for scoring the winner, see `Clock.reserve`. Twice the time in the last
# training is worth more than twice the candidates, see experiments/equal_time; where
# there is to be none, the others have its time, see `Clock.ends`.
SEARCH_ENDS, PHASES_END, TRAINING_ENDS = 0.3, 0.45, 0.95

SPENT_EVERY = 5.0  # seconds, after which a training writes down what is spent
GRACE = 0.03  # of the budget, for what was predicted to end in time to end after all

LEAST = 30.0  # seconds

WINNER: Final = "winner"  # the decision which candidate wins, by its id
NO_LAST: Final = "no last training"  # that there is none, as the user wants it

BEGAN = time.monotonic()  # when this process did, or nearly: imported first of all

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)([smh]))+")


def seconds_of(text: str) -> float:
    """Seconds of "90s", "30m", "1.5h" or "2h30m".

    Raises:
      ValueError: it is none of these, or less than `LEAST`.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration: write 90s, 30m, 1.5h or 2h30m")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not LEAST <= seconds < math.inf:
        raise ValueError(f"{text} must be at least {LEAST:.0f}s")
    return seconds


class Decided(TypedDict, total=False):
    """Decisions by their names, as far as others read them: the settings planned."""

    open: list[str]
    winner: int


class Spent(TypedDict):
    """What a budget's file holds: seconds spent, and what was decided."""

    spent: float
    decided: Decided


class Clock:
    """How much of the budget is spent, and what it has decided so far.

    Without a budget nothing is ever late and nothing is recorded.
    """

    def __init__(self, budget: float | None, path: Path, began: float):
        """Goes on from the file, if there is one.

        Args:
          budget: seconds, None for no limit.
          path: of the decisions.
          began: by `time.monotonic`, when this process did.

        Raises:
          UsageError: the file is damaged.
        """
        self.budget, self._path, self._began = budget, path, began
        self._decided: Json = {}
        self._before = 0.0  # seconds, of earlier processes
        self._reserve = 0.0  # seconds, at the end
        self._saved = -math.inf  # when, by `time.monotonic`
        self._writing = threading.RLock()  # several models train at once
        if budget is None or not path.exists():
            return
        found: Spent = read_kept(path, Spent)
        self._decided, self._before = {**found["decided"]}, found["spent"]

    def spent(self) -> float:
        """Seconds so far, those before a resume among them."""
        return self._before + time.monotonic() - self._began

    def reserve(self, seconds: float) -> None:
        """Keeps so many for the end, whatever the shares are."""
        self._reserve = seconds

    def ends(self, share: float) -> float:
        """Seconds after which a part ends, by its share of the budget."""
        if self.budget is None:
            return math.inf
        if share <= PHASES_END and self._decided.get(NO_LAST):
            share *= TRAINING_ENDS / PHASES_END
        ends = share * self.budget
        return ends if share == 1 else min(ends, self.budget - self._reserve)

    def left(self, share: float = 1.0) -> float:
        """Seconds until a part ends, see `ends`; below zero when late."""
        return self.ends(share) - self.spent()

    def late(self, share: float) -> bool:
        """Whether a share of the budget is spent."""
        return self.left(share) <= 0

    def decided(self, name: str, kind: Any = object) -> Any:
        """What was decided before, None if it was not.

        Raises:
          UsageError: the file holds a decision of another kind, see `misfit`.
        """
        value = self._decided.get(name)
        if value is not None and (wrong := misfit(value, kind, name)) is not None:
            raise UsageError(f"{self._path} is damaged: {wrong}")
        return value

    def plans(self, setting: str) -> bool:
        """Whether it decides what a setting is, which the user left open."""
        return setting in (self.decided("open", list[str]) or ())

    def decide(self, name: str, value: Any) -> Any:
        """Records a decision of the clock's, once; returns the one that holds."""
        with self._writing:
            if self.budget is not None and name not in self._decided:
                self._decided[name] = value
                self.save()
        return self._decided.get(name, value)

    def save(self, every: float = 0.0) -> None:
        """Writes down what is spent, unless it was so few seconds ago."""
        now = time.monotonic()
        if self.budget is not None and now - self._saved >= every:
            with self._writing:
                self._saved = now
                found = {"spent": round(self.spent(), 3), "decided": self._decided}
                write_json(self._path, found)


class Deadline:
    """When a part of a run ends, and with how many candidates it did.

    Once it has passed nothing new is trained, and a little later what still trains
    is stopped; what is known counts all the same, also after a resume.
    """

    def __init__(self, clock: Clock, share: float, name: str) -> None:
        """`share` of the clock's budget; `name`, under which the end is recorded."""
        self._clock, self._share, self._name = clock, share, name

    @property
    def ended(self) -> int | None:
        """The candidates that the part ended with, None if it was not cut."""
        return self._clock.decided(self._name, int)

    @property
    def bounded(self) -> bool:
        """Whether there is a budget."""
        return self._clock.budget is not None

    def left(self) -> float:
        """Seconds in which something new may be trained; below zero when late."""
        return -math.inf if self.ended is not None else self._clock.left(self._share)

    def passed(self) -> bool:
        """Whether nothing new is trained."""
        return self.left() <= 0

    def over(self) -> bool:
        """Whether what still trains is stopped."""
        grace = GRACE * (self._clock.budget or 0.0)
        return self.left() <= -grace

    def save(self) -> None:
        """Writes down what is spent."""
        self._clock.save()

    def end(self, number: int) -> None:
        """Records that the part ends with this many candidates."""
        self._clock.decide(self._name, number)


NEVER = Deadline(Clock(None, Path(), 0.0), 1.0, "")


def clock_words(seconds: float) -> str:
    """75 -> "1:15"."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02d}"
