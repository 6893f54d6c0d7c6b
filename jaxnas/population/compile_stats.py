"""How many compilations this process asked for, and how many were built anew."""

import functools
import threading
from typing import NamedTuple

from jax import monitoring


class Counts(NamedTuple):
    """What XLA was asked for by this process so far."""

    compiled: int = 0  # built anew
    cached: int = 0  # found on the disk

    def since(self, before: "Counts") -> "Counts":
        """What came after."""
        return Counts(self.compiled - before.compiled, self.cached - before.cached)


class _Counter:
    """Listens to JAX; what is found in the cache is told apart from what is built."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = self._cached = 0
        monitoring.register_event_duration_secs_listener(self._hear_duration)
        monitoring.register_event_listener(self._hear)

    def _hear_duration(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("/backend_compile_duration"):
            with self._lock:
                self._asked += 1

    def _hear(self, event: str, **_: str | int) -> None:
        if event.endswith("/compilation_cache/cache_hits"):
            with self._lock:
                self._cached += 1

    def counts(self) -> Counts:
        with self._lock:
            return Counts(self._asked - self._cached, self._cached)


@functools.cache
def _counter() -> _Counter:
    return _Counter()


def compile_counts() -> Counts:
    """Compilations of this process since the first call."""
    return _counter().counts()
