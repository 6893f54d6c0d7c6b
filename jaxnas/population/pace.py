"""How fast a run goes, beside what was predicted: learned from what it has done."""

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

KINDS = ("compile", "call")
RECENT = 32  # of each kind, that its factor is learned from


class NoTime(Exception):
    """Something was not begun: it could not have ended in time."""


class Timing:
    """Something that runs; `whole` is set to False if it ended early."""

    whole = True


class Pace:
    """Measured over predicted seconds of compilations and of calls.

    Predictions are for as many at once as there are cores. Where more run, each
    second counts for what each of them had of it.
    """

    def __init__(self, cores: float = float("inf")) -> None:
        """`cores` that all that runs shares; inf where nothing waits for another."""
        self._cores, self._lock = cores, threading.Lock()
        self._running, self._now, self._shared = 0, 0.0, 0.0
        self._seen = {
            kind: collections.deque[tuple[float, float]](maxlen=RECENT)
            for kind in KINDS
        }

    @contextlib.contextmanager
    def timed(self, kind: str, predicted: float) -> Iterator[Timing]:
        """Learns from the block, if it ends whole and without an error.

        Args:
          kind: compile | call.
          predicted: seconds, before any correction; 0 to learn nothing.
        """
        begin, timing = self._move(1), Timing()
        try:
            yield timing
        except BaseException:
            self._move(-1)
            raise
        measured = self._move(-1) - begin
        if timing.whole and predicted > 0:
            self.learn(kind, predicted, measured)

    def learn(self, kind: str, predicted: float, measured: float) -> None:
        """Enters seconds that something took beside those predicted."""
        with self._lock:
            self._seen[kind].append((predicted, measured))

    def factor(self, kind: str) -> float:
        """How many times as long as predicted: a ratio of sums over the last ones.

        The other kind's while it is not known, 1 while neither is.
        """
        with self._lock:
            seen = self._seen[kind] or [
                one for each in self._seen.values() for one in each
            ]
            return max(1e-3, _ratio(seen))

    def slower_than(self, factors: Sequence[float]) -> float:
        """How many times as long it lately took as by these factors, by `KINDS`."""
        with self._lock:
            seen = [
                (factor * predicted, measured)
                for kind, factor in zip(KINDS, factors, strict=True)
                for predicted, measured in self._seen[kind]
            ]
        return _ratio(seen)

    def corrected(self, compile_seconds: float, call_seconds: float) -> float:
        """Seconds of a compilation and of what runs after it, from predicted ones."""
        compiled = self.factor("compile") * compile_seconds
        return compiled + self.factor("call") * call_seconds

    def _move(self, change: int) -> float:
        """Seconds that each of those running had for itself, up to now."""
        with self._lock:
            now = time.monotonic()
            share = min(1.0, self._cores / max(1, self._running))
            self._shared += share * (now - self._now)
            self._now = now
            self._running += change
            return self._shared


def _ratio(seen: Iterable[tuple[float, float]]) -> float:
    """Measured over predicted seconds, in sum; 1 of nothing."""
    pairs = list(seen)
    predicted = sum(pair[0] for pair in pairs)
    return sum(pair[1] for pair in pairs) / predicted if pairs else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allowance:
    """What of a plan may begin, and when the rest of it stops.

    Attributes:
      begins: told the seconds until a call would have ended, returns whether it,
        and the compilation that it needs, may begin.
      over: whether what runs is stopped, too.
    """

    begins: Callable[[float], bool] = lambda seconds: True
    over: Callable[[], bool] = lambda: False


NO_BOUND = Allowance()
