"""Compiles programs ahead of their turn, in the background."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import jax

from jaxnas.population.program import Compiled, Program, compile_program
from jaxnas.training.scoring import Compression
from jaxnas.training.task import Task


class Compiler:
    """Programs by device; each is compiled once, in the background."""

    def __init__(
        self, task: Task, windows: int | None, lone: Compression | None, cores: int = 2
    ) -> None:
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

    def forget(self, program: Program, device: jax.Device) -> None:
        """A program that could not be compiled may be tried again."""
        with self._lock:
            future = self._ready.get((program, device.id))
            if future and future.done() and future.exception() is not None:
                del self._ready[program, device.id]

    def close(self) -> None:
        """Gives up what was not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __len__(self) -> int:
        """Programs asked for so far, on each device."""
        return len(self._ready)

    def _compile(self, program: Program, device: jax.Device) -> Compiled:
        task, windows, lone = self._about
        return compile_program(program, task, windows, lone, device)
