"""Compiles programs ahead of their turn, and counts what was compiled."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
from jax import monitoring

from jaxnas.evaluation.programs import Compiled, Program, compile_program
from jaxnas.evaluation.scored import Compression
from jaxnas.evaluation.task import Task


class Counts(NamedTuple):
    """What XLA was asked for by this process so far."""

    compiled: int = 0  # built anew
    cached: int = 0  # found in the persistent cache

    def since(self, before: "Counts") -> "Counts":
        """What came after."""
        return Counts(self.compiled - before.compiled, self.cached - before.cached)


class _Counter:
    """Listens to JAX; what is found in the cache is told apart from what is built."""

    def __init__(self):
        self._lock = threading.Lock()
        self._asked = self._cached = 0
        monitoring.register_event_duration_secs_listener(self._hear_duration)
        monitoring.register_event_listener(self._hear)

    def _hear_duration(self, event: str, duration_secs: float, **_: str | int):
        if event.endswith("/backend_compile_duration"):
            with self._lock:
                self._asked += 1

    def _hear(self, event: str, **_: str | int):
        if event.endswith("/compilation_cache/cache_hits"):
            with self._lock:
                self._cached += 1

    def counts(self) -> Counts:
        with self._lock:
            return Counts(self._asked - self._cached, self._cached)


_counter: _Counter | None = None


def compile_counts() -> Counts:
    """Compilations of this process since the first call."""
    global _counter
    if _counter is None:
        _counter = _Counter()
    return _counter.counts()


class Compiler:
    """Programs by device; each is compiled once, in the background."""

    def __init__(
        self, task: Task, windows: int | None, lone: Compression | None, cores: int = 2
    ):
        """Compiles on as many cores; the rest as `compile_program`."""
        self._about = (task, windows, lone)
        self._ready: dict[tuple[Program, int], Future[Compiled]] = {}
        self._pool = ThreadPoolExecutor(max(2, cores), thread_name_prefix="compile")
        self._lock = threading.Lock()

    def ask(self, program: Program, device: jax.Device) -> "Future[Compiled]":
        """The compiled program, now or later."""
        with self._lock:
            key = (program, device.id)
            if key not in self._ready:
                self._ready[key] = self._pool.submit(self._compile, program, device)
            return self._ready[key]

    def forget(self, program: Program, device: jax.Device):
        """A program that could not be compiled may be tried again."""
        with self._lock:
            future = self._ready.get((program, device.id))
            if future and future.done() and future.exception() is not None:
                del self._ready[program, device.id]

    def close(self):
        """Gives up what was not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __len__(self) -> int:
        """Programs asked for so far, on each device."""
        return len(self._ready)

    def _compile(self, program: Program, device: jax.Device) -> Compiled:
        task, windows, lone = self._about
        return compile_program(program, task, windows, lone, device)
