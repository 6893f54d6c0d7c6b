"""Compiles programs ahead of their turn, in the background."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax

from jaxnas.population.cost_model import Rates
from jaxnas.population.pace import NoTime, Pace
from jaxnas.population.program import Compiled, Program, compile_program
from jaxnas.runtime import give_back
from jaxnas.training.scoring import Compression
from jaxnas.training.task import Task

# Seconds, as predicted, that a process's first compilation takes longer than another:
# 13 s of CPU time where 5.5 were predicted, then 5 to 7.7 where 4.6 to 4.8 were.
FIRST = 3.5


class Compiler:
    """Programs by device; each is compiled once, in the background."""

    def __init__(
        self,
        task: Task,
        windows: int | None,
        lone: Compression | None,
        cores: int = 2,
        pace: Pace | None = None,
        rates: Rates | None = None,
    ) -> None:
        """Compiles on as many cores; the first three as for `compile_program`.

        Args:
          task: see `Task`.
          windows: that score a member.
          lone: the only compression.
          cores: that compile.
          pace: learns from each compilation, if it is given with the rates.
          rates: that predict its seconds.
        """
        self.lone, self._about = lone, (task, windows, lone)
        self._pace, self._rates = pace or Pace(), rates
        self._ready: dict[tuple[Program, int], Future[Compiled]] = {}
        self._pool = ThreadPoolExecutor(max(2, cores), thread_name_prefix="compile")
        self._lock = threading.Lock()

    def ask(
        self,
        program: Program,
        device: jax.Device,
        begins: Callable[[], bool] = lambda: True,
    ) -> "Future[Compiled]":
        """The compiled program, now or later.

        It ends with `NoTime` if `begins`, asked as its turn comes, returns False; it
        may be asked for again.
        """
        with self._lock:
            key = (program, device.id)
            if key not in self._ready or _was_not_begun(self._ready[key]):
                job = self._pool.submit(self._compile, program, device, begins)
                self._ready[key] = job
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

    def _compile(
        self, program: Program, device: jax.Device, begins: Callable[[], bool]
    ) -> Compiled:
        if not begins():
            raise NoTime
        task, windows, lone = self._about
        seconds = 0.0
        if self._rates:
            seconds = self._rates.compile_seconds(program) + next(_extra)
        with self._pace.timed("compile", seconds):
            compiled = compile_program(program, task, windows, lone, device)
        give_back()  # what compiling took
        return compiled


_extra = itertools.chain([FIRST], itertools.repeat(0.0))


def _was_not_begun(job: "Future[Compiled]") -> bool:
    return job.done() and isinstance(job.exception(), NoTime)
