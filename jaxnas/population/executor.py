"""Runs a plan: each worker of a device trains the next call whose program is there."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax

from arch import ArchitectureConfig
from jaxnas.errors import UsageError
from jaxnas.population.call import Outcome, Work, train_call
from jaxnas.population.compiler import Compiler
from jaxnas.population.pace import NO_BOUND, Allowance, NoTime, Pace
from jaxnas.population.plan import Plan
from jaxnas.population.pool import (
    CallPool,
    Event,
    PlannedCall,
    PredictedCall,
    Split,
    Steps,
    call_ended,
    check_memory,
    failures,
    is_whole,
    split_call,
    too_large,
)
from jaxnas.population.ray_cluster import Cluster
from jaxnas.population.remote_pool import RemotePool
from jaxnas.training.single import Report, TrainingFailed

LOOKS = 1.0  # seconds between looks at whether all is over


def execute(
    plan: Plan,
    candidates: Mapping[str, ArchitectureConfig | None],
    work: Work,
    compiler: Compiler,
    take: Callable[[Outcome], bool],
    *,
    devices: Sequence[jax.Device],
    workers: int = 1,
    memory: float = float("inf"),
    report: Report = lambda done, total, loss: None,
    on_split: Callable[[Split], None] = lambda split: None,
    pace: Pace | None = None,
    allowance: Allowance = NO_BOUND,
    cluster: Cluster | None = None,
) -> None:
    """Trains and scores the candidates as planned.

    Args:
      plan: see `Plan`.
      candidates: the plan's by key, in its order, of `training_config`; None for
        one that is done.
      work: see `Work`.
      compiler: of the work's task.
      take: called with each outcome as it comes; returns whether to go on.
      devices: those that the plan counts.
      workers: calls that a device runs at once.
      memory: bytes of a device that may be used.
      report: steps done and to do, over all calls, and the last loss.
      on_split: called with each program that does not fit.
      pace: learns from each call.
      allowance: a call that may not begin leaves no outcome.
      cluster: whose workers train instead of the devices.

    Raises:
      UsageError: a file that the work reads cannot be used.
    """
    pace = pace or Pace()
    pool: CallPool
    if cluster is not None:
        pool = RemotePool(cluster, candidates, work, compiler.lone, pace, allowance)
    else:
        pool = _WorkerPool(
            candidates, work, compiler, devices, workers, memory, pace, allowance
        )
    with contextlib.closing(pool):
        calls = _calls(plan, candidates, len(devices))
        pool.submit(calls)
        ahead = () if cluster else plan.prepared  # workers compile what they need
        prepared = [compiler.ask(program, devices[0]) for program in ahead]
        steps, going = len(work.starts) - work.begin, True
        outcomes = _outcomes(
            *(pool.events, len(calls), steps, report, on_split),
            lambda: not going or allowance.over(),
        )
        for outcome in outcomes:  # what has ended by then counts
            going = take(outcome) and going
        if not going:
            return
        while concurrent.futures.wait(prepared, LOOKS).not_done:
            if allowance.over():  # what failed is reported when it is needed
                return


def _outcomes(
    events: "queue.SimpleQueue[Event]",
    calls: int,
    steps: int,
    report: Report,
    on_split: Callable[[Split], None],
    over: Callable[[], bool],
) -> Iterator[Outcome]:
    """Outcomes as they come, `steps` a call, until it is over; the rest is told.

    Then those of calls that have ended.
    """
    done = ended = 0
    while ended < calls:
        late = over()
        try:
            event = events.get(timeout=0.0 if late else LOOKS)
        except queue.Empty:
            if late:
                return
            continue
        if isinstance(event, Steps):
            done += event.number
            report(done, max(steps * calls, done), event.loss)
        elif isinstance(event, Split):
            calls += event.calls
            on_split(event)
        else:
            ended += 1
            yield from event.result()


def _calls(
    plan: Plan, candidates: Mapping[str, ArchitectureConfig | None], devices: int
) -> list[PlannedCall]:
    """The plan's calls in their order, on so many devices; those done are left out."""
    keys, calls = list(candidates), []
    for bucket in plan.buckets:
        device = bucket.device % devices  # planned where there were more
        seconds = bucket.seconds / len(bucket.groups)
        expected = PredictedCall(bucket.compile_seconds, seconds)
        for group in bucket.groups:
            # Those done leave a lane to a copy: the others keep theirs.
            own = tuple(
                keys[place] if candidates[keys[place]] else None for place in group
            )
            if any(key is not None for key in own):
                calls.append(PlannedCall(device, bucket.program, own, expected))
    return calls


class _WorkerPool:
    """A `CallPool` of threads a device; a call waits until its program is there."""

    def __init__(
        self,
        candidates: Mapping[str, ArchitectureConfig | None],
        work: Work,
        compiler: Compiler,
        devices: Sequence[jax.Device],
        workers: int,
        memory: float,
        pace: Pace,
        allowance: Allowance,
    ) -> None:
        self._candidates, self._work, self._compiler = candidates, work, compiler
        self._pace, self._allowance = pace, allowance
        self._devices, self._memory = devices, memory
        self._pools = [
            ThreadPoolExecutor(workers, thread_name_prefix="train") for _ in devices
        ]
        self._used = [0.0 for _ in devices]  # bytes
        self._freed = threading.Condition()
        self._stopped = False
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def submit(self, calls: Sequence[PlannedCall]) -> None:
        """Queues each call for when its program is compiled."""
        for call in calls:
            compiled = self._compiler.ask(
                call.program,
                self._devices[call.device],
                functools.partial(self._begins, call.expected),
            )
            compiled.add_done_callback(functools.partial(self._queue, call))

    def _queue(self, call: PlannedCall, compiled: Future) -> None:
        if compiled.cancelled() or isinstance(compiled.exception(), NoTime):
            self.events.put(call_ended([]))
            return
        with contextlib.suppress(RuntimeError):  # the pool is closed by now
            outcomes = self._pools[call.device].submit(self._run, call)
            outcomes.add_done_callback(self.events.put)

    def _begins(self, expected: PredictedCall) -> bool:
        seconds = self._pace.corrected(*expected)
        return not self._stopped and self._allowance.begins(seconds)

    def close(self) -> None:
        """Stops each running call at its next steps, and waits for it."""
        self._stopped = True
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, call: PlannedCall) -> list[Outcome]:
        begin = time.monotonic()
        at, program, keys, expected = call
        device = self._devices[at]
        try:
            compiled = self._compiler.ask(program, device).result()
            if not self._begins(PredictedCall(0.0, expected.call)):
                return []
            check_memory(compiled, self._memory)
            with (
                self._room(at, compiled.memory),
                self._pace.timed("call", expected.call) as timing,
            ):
                outcomes = train_call(
                    program,
                    keys,
                    self._candidates,
                    self._work,
                    compiled,
                    device,
                    on_steps=self._on_steps,
                )
                timing.whole = is_whole(outcomes)
        except UsageError:  # a file that cannot be used: the user has to fix it
            raise
        except Exception as error:  # any: a candidate's failure is its result
            self._compiler.forget(program, device)
            reason = too_large(error)
            if reason and split_call(self, call, self._candidates, reason):
                return []
            outcomes = failures(program, keys, error)
        seconds = time.monotonic() - begin
        return [dataclasses.replace(outcome, seconds=seconds) for outcome in outcomes]

    def _on_steps(self, steps: int, loss: float) -> None:
        if self._stopped:
            raise TrainingFailed("stopped")
        self.events.put(Steps(steps, loss))

    @contextlib.contextmanager
    def _room(self, device: int, memory: int) -> Iterator[None]:
        """Waits until the device has room for a call; a lone one always has."""

        def fits() -> bool:
            used = self._used[device]
            return not used or used + memory <= self._memory

        with self._freed:
            self._freed.wait_for(fits)
            self._used[device] += memory
        try:
            yield
        finally:
            with self._freed:
                self._used[device] -= memory
                self._freed.notify_all()
