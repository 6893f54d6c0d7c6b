"""Runs a plan: every device has its buckets, every worker takes the next call."""

import contextlib
import dataclasses
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from arch import ArchitectureConfig
from arch.padding import common_shape
from jaxnas.evaluation.buckets import Plan
from jaxnas.evaluation.compiler import Compiler
from jaxnas.evaluation.population import Group, Running
from jaxnas.evaluation.programs import Compiled, Program
from jaxnas.evaluation.scored import Compression, Metrics
from jaxnas.evaluation.task import Task
from jaxnas.evaluation.trained import Report, TrainingFailed

MIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one candidate."""

    place: int  # among the plan's candidates
    program: Program  # it was trained in
    seconds: float  # of its call
    loss: float = math.nan  # the last one of training
    params: dict | None = None  # in its own shape; None if it failed
    metrics: dict[Compression, Metrics | None] = dataclasses.field(default_factory=dict)
    error: Exception | None = None
    trace: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What all members of a plan do.

    Attributes:
      task: see `Task`.
      starts: i32[steps, B], from `batch_starts`.
      windows: i32[N, T+1], to score on.
      wanted: candidate -> compressions to score it after.
    """

    task: Task
    starts: np.ndarray
    windows: np.ndarray
    wanted: Callable[[int], Sequence[Compression]]


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
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Outcome]:
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
      say: told of buckets that are split.
    """
    crew = _Crew(candidates, work, compiler, memory, say)
    for bucket in plan.buckets:
        for group in bucket.groups:
            places = tuple(place for place in group if candidates[place] is not None)
            if places:
                crew.add(bucket.device, bucket.program, places)
    steps = len(work.starts) * crew.calls
    crew.start(devices, workers)
    prepared = [compiler.ask(program, devices[0]) for program in plan.prepared]
    stepped = 0
    try:
        while crew.working():
            with contextlib.suppress(queue.Empty):
                kind, what = crew.events.get(timeout=0.2)
                if kind == "steps":
                    stepped += what[0]
                    report(stepped, max(steps, stepped), what[1])
                elif kind == "say":
                    say(what)
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

    def __init__(self, candidates, work: Work, compiler: Compiler, memory, say):
        self._candidates, self._work, self._compiler = candidates, work, compiler
        self._memory = memory
        self._todo: dict[int, list[tuple[Program, tuple[int, ...]]]] = {}
        self._lock = threading.Condition()
        self._stopped = False
        self._used: dict[int, float] = {}
        self._threads: list[threading.Thread] = []
        self.events: queue.Queue = queue.Queue()
        self.calls = 0

    def add(self, device: int, program: Program, places: tuple[int, ...]):
        self._todo.setdefault(device, []).append((program, places))
        self.calls += 1

    def start(self, devices: Sequence[jax.Device], workers: int):
        for at, calls in self._todo.items():
            device = devices[at % len(devices)]  # planned where there were more
            for program, _ in calls:
                self._compiler.ask(program, device)
            for _ in range(min(workers, len(calls))):
                thread = threading.Thread(
                    target=self._serve, args=(at, device), daemon=True
                )
                thread.start()
                self._threads.append(thread)

    def working(self) -> bool:
        alive = any(thread.is_alive() for thread in self._threads)
        return alive or not self.events.empty()

    def stop(self):
        with self._lock:
            self._stopped = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self, at: int, device: jax.Device):
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

    def _run(self, at, device, program: Program, places: tuple[int, ...]):
        begin = time.monotonic()
        try:
            compiled = self._compiler.ask(program, device).result()
            if compiled.memory > self._memory:
                raise _TooLargeError(
                    f"needs {compiled.memory / MIB:.0f} MiB of the device, "
                    f"{self._memory / MIB:.0f} may be used"
                )
            with self._room(at, compiled.memory):
                found = self._train(device, program, places, compiled)
        except Exception as error:  # any: a candidate's failure is its result
            if _is_memory(error) and self._split(at, program, places, error):
                return
            trace = traceback.format_exc()
            found = [(None, {}, error, trace, math.nan) for _ in places]
        seconds = time.monotonic() - begin
        for place, (params, metrics, failure, trace, loss) in zip(
            places, found, strict=True
        ):
            outcome = Outcome(
                place=place,
                program=program,
                seconds=seconds,
                params=params,
                metrics=metrics,
                error=failure,
                trace=trace,
                loss=loss,
            )
            self.events.put(("outcome", outcome))

    def _train(self, device, program, places, compiled: Compiled) -> list[tuple]:
        work = self._work
        configs = [self._candidates[place] for place in places]
        group = Group(program=program, configs=configs)
        running = Running(group, work.task, len(work.starts), device)
        bad: dict[int, Exception] = {}
        size = work.task.settings.steps_per_call
        for begin in range(0, len(work.starts), size):
            if self._stopped:
                raise TrainingFailed("stopped")
            losses = running.advance(compiled.train, work.starts[begin : begin + size])
            for lane in range(len(places)):
                finite = np.isfinite(losses[lane])
                if lane not in bad and not finite.all():
                    step = int(np.argmin(finite))
                    bad[lane] = TrainingFailed(
                        f"the training loss is {losses[lane, step]} at step "
                        f"{begin + step}"
                    )
            number = losses.shape[1]
            self.events.put(("steps", (number, float(losses[0, -1]))))
            if len(bad) == len(places):
                break
        if len(bad) == len(places):
            return [(None, {}, bad[lane], f"{bad[lane]}\n", math.nan) for lane in bad]
        wanted = [list(work.wanted(place)) for place in places]
        every = list(dict.fromkeys(one for each in wanted for one in each))
        metrics: list[dict[Compression, Metrics | None]] = [{}] * len(places)
        if every and compiled.score is not None:
            metrics = running.score(compiled.score, work.windows, every)
        states = running.states()
        return [
            (None, {}, bad[lane], f"{bad[lane]}\n", math.nan)
            if lane in bad
            else (
                states[lane].params,
                {one: metrics[lane][one] for one in wanted[lane]},
                None,
                "",
                float(losses[lane, -1]),
            )
            for lane in range(len(places))
        ]

    def _split(self, at, program: Program, places, error) -> bool:
        """Makes smaller calls of one that does not fit; False if there are none."""
        configs = [self._candidates[place] for place in places]
        if program.lanes > 1:
            lanes = -(-program.lanes // 2)
            smaller = dataclasses.replace(program, lanes=lanes)
            parts = [
                (smaller, tuple(places[begin : begin + lanes]))
                for begin in range(0, len(places), lanes)
            ]
        else:
            [config] = configs
            own = dataclasses.replace(program, shape=common_shape([config]))
            if not program.elastic or own == program:
                return False
            parts = [(own, places)]
        reason = "ran out of memory"
        if isinstance(error, _TooLargeError):
            reason = str(error)
        self.events.put(
            (
                "say",
                f"a bucket of {len(places)} in {program.lanes} lanes is split, it "
                f"{reason}",
            )
        )
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


class _TooLargeError(MemoryError):
    """A program that needs more of the device than may be used."""


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
