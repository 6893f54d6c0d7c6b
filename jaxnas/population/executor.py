"""Runs a plan: every device has its buckets, every worker takes the next call."""

import contextlib
import dataclasses
import queue
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence

import jax

from arch import ArchitectureConfig
from arch.padding import common_shape
from jaxnas.errors import UsageError
from jaxnas.population.call import Outcome, Places, Work, train_call
from jaxnas.population.compiler import Compiler
from jaxnas.population.plan import Plan
from jaxnas.population.program import Program
from jaxnas.training.single import Report, TrainingFailed

MIB = 2**20


def execute(
    plan: Plan,
    candidates: Sequence[ArchitectureConfig | None],
    work: Work,
    compiler: Compiler,
    *,
    devices: Sequence[jax.Device],
    workers: int = 1,
    memory: float = float("inf"),
    report: Report = lambda done, total, loss: None,
    on_split: Callable[[Program, list[Program], str], None] = lambda *_: None,
) -> Generator[Outcome]:
    """Trains and scores the candidates as planned; outcomes as they come.

    Args:
      plan: see `Plan`.
      candidates: the plan's, of `training_config`; None for one that is done.
      work: see `Work`.
      compiler: of the work's task.
      devices: those that the plan counts.
      workers: members that each device trains at once.
      memory: bytes of a device that may be used.
      report: steps done and to do, over all calls, and the last loss.
      on_split: told of a program that does not fit, of those that take its place,
        and why.
    """
    crew = _Crew(candidates, work, compiler, memory)
    for bucket in plan.buckets:
        device = bucket.device % len(devices)  # planned where there were more
        for group in bucket.groups:
            # Who is done leaves a lane to a copy: the others keep theirs.
            places = tuple(
                None if candidates[place] is None else place for place in group
            )
            if any(place is not None for place in places):
                crew.add(device, bucket.program, places)
                compiler.ask(bucket.program, devices[device])
    prepared = [compiler.ask(program, devices[0]) for program in plan.prepared]
    steps = (len(work.starts) - work.begin) * crew.calls
    stepped = 0
    try:
        crew.start(devices, workers)
        while crew.working():
            with contextlib.suppress(queue.Empty):
                kind, what = crew.events.get(timeout=0.2)
                if kind == "steps":
                    stepped += what[0]
                    report(stepped, max(steps, stepped), what[1])
                elif kind == "split":
                    on_split(*what)
                elif kind == "broken":
                    raise what
                else:
                    yield what
        for program in prepared:
            with contextlib.suppress(Exception):  # reported when it is needed
                program.result()
    finally:
        crew.stop()


class _Crew:
    """The workers, what is left for them to do, and what they say."""

    def __init__(
        self, candidates, work: Work, compiler: Compiler, memory: float
    ) -> None:
        self._candidates, self._work, self._compiler = candidates, work, compiler
        self._memory = memory
        self._todo: dict[int, list[tuple[Program, Places]]] = {}
        self._lock = threading.Condition()
        self._stopped = False
        self._used: dict[int, float] = {}
        self._threads: list[threading.Thread] = []
        self.events: queue.Queue = queue.Queue()
        self.calls = 0

    def add(self, device: int, program: Program, places: Places) -> None:
        self._todo.setdefault(device, []).append((program, places))
        self.calls += 1

    def start(self, devices: Sequence[jax.Device], workers: int) -> None:
        for at, calls in self._todo.items():
            for _ in range(min(workers, len(calls))):
                thread = threading.Thread(
                    target=self._serve, args=(at, devices[at]), daemon=True
                )
                thread.start()
                self._threads.append(thread)

    def working(self) -> bool:
        alive = any(thread.is_alive() for thread in self._threads)
        return alive or not self.events.empty()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self, at: int, device: jax.Device) -> None:
        """A worker's day: the next call whose program is there."""
        try:
            while (call := self._next(at, device)) is not None:
                self._run(at, device, *call)
        except BaseException as error:  # a bug of ours, not a candidate's failure
            self.events.put(("broken", error))

    def _next(self, at: int, device: jax.Device):
        while not self._stopped:
            with self._lock:
                if not self._todo[at]:
                    return None
                for place, (program, _) in enumerate(self._todo[at]):
                    if self._compiler.ask(program, device).done():
                        return self._todo[at].pop(place)
            time.sleep(0.01)
        return None

    def _run(self, at, device, program: Program, places: Places):
        begin = time.monotonic()
        try:
            compiled = self._compiler.ask(program, device).result()
            if compiled.memory > self._memory:
                raise MemoryError(
                    f"it needs {compiled.memory / MIB:.0f} MiB of the device, "
                    f"{self._memory / MIB:.0f} may be used"
                )
            with self._room(at, compiled.memory):
                outcomes = train_call(
                    program,
                    places,
                    self._candidates,
                    self._work,
                    compiled,
                    device,
                    on_steps=self._stepped,
                )
        except UsageError:  # a file that cannot be used is the user's to mend
            raise
        except Exception as error:  # any: a candidate's failure is its result
            self._compiler.forget(program, device)
            if _is_memory(error) and self._split(at, device, program, places, error):
                return
            trace = traceback.format_exc()
            error = error.with_traceback(None)  # which would hold the call's arrays
            outcomes = [
                Outcome(place=place, program=program, error=error, trace=trace)
                for place in places
                if place is not None
            ]
        seconds = time.monotonic() - begin
        for outcome in outcomes:
            done = dataclasses.replace(outcome, seconds=seconds)
            self.events.put(("outcome", done))

    def _stepped(self, steps: int, loss: float):
        if self._stopped:
            raise TrainingFailed("stopped")
        self.events.put(("steps", (steps, loss)))

    def _split(self, at, device, program: Program, places: Places, error) -> bool:
        """Makes smaller calls of one that does not fit; False if there are none."""
        members = [place for place in places if place is not None]
        if program.lanes > 1:
            lanes = min(program.lanes, 1 << (len(members) - 1).bit_length()) // 2
            smaller = dataclasses.replace(program, lanes=max(1, lanes))
            parts = [
                (smaller, tuple(members[begin : begin + smaller.lanes]))
                for begin in range(0, len(members), smaller.lanes)
            ]
        else:
            [config] = [self._candidates[place] for place in members]
            own = dataclasses.replace(program, shape=common_shape([config]))
            exact = Program(shape=config)
            smaller = own if program.elastic and own != program else exact
            if smaller == program:
                return False
            parts = [(smaller, tuple(members))]
        reason = str(error) if isinstance(error, MemoryError) else "out of memory"
        self.events.put(("split", (program, [smaller], reason)))
        self._compiler.ask(smaller, device)
        with self._lock:
            self._todo[at] = parts + self._todo[at]
        return True

    @contextlib.contextmanager
    def _room(self, at: int, memory: int):
        """Waits until the device has room for a call; a lone one always has."""
        with self._lock:
            while self._used.get(at, 0) and self._used[at] + memory > self._memory:
                self._lock.wait(0.1)
            self._used[at] = self._used.get(at, 0) + memory
        try:
            yield
        finally:
            with self._lock:
                self._used[at] -= memory
                self._lock.notify_all()


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
