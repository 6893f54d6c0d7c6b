"""Gives the calls of a plan to the workers of a cluster: whoever is free has the next.

One thread does it all; what happens elsewhere comes to it as something to do.
"""

import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait

from arch import ArchitectureConfig
from jaxnas.errors import RunFailed, reason_of
from jaxnas.population.call import Outcome, Work
from jaxnas.population.pace import Allowance, Pace
from jaxnas.population.pool import (
    Event,
    PlannedCall,
    PredictedCall,
    Steps,
    call_ended,
    failures,
    is_whole,
    split_call,
)
from jaxnas.population.ray_cluster import Cluster, ClusterWorker
from jaxnas.population.remote_call import Ran, call_of, shared_work
from jaxnas.training.scoring import Compression

DEATHS = 3  # of workers, after which the call that they ran has failed
WAITS = 5.0  # seconds that a stopped call may take to its next steps


class WorkerLost(RuntimeError):
    """Whoever took the call did not come back."""


@dataclasses.dataclass(eq=False)
class _Queued:
    """A call that waits for a worker, or has one."""

    planned: PlannedCall
    holders: set[ClusterWorker]  # of its program
    deaths: int = 0  # of workers that had it
    memory: float = 0.0  # bytes that a worker needs more of


class RemotePool:
    """A `CallPool` of a cluster's workers.

    A worker that dies costs the call that it ran, which another one gets; a new
    worker is started in its place. A call that does not fit goes to a worker with
    more memory if there is one, and is split if not.
    """

    def __init__(
        self,
        cluster: Cluster,
        candidates: Mapping[str, ArchitectureConfig | None],
        work: Work,
        lone: Compression | None,
        pace: Pace,
        allowance: Allowance,
    ) -> None:
        self._cluster, self._candidates, self._work = cluster, candidates, work
        self._pace, self._allowance = pace, allowance
        cluster.grow()
        self._plan = cluster.next_plan()
        self._data = cluster.data(work.task.dataset)
        self._shared = cluster.shared(shared_work(work, lone))
        self._waiting: list[_Queued] = []
        self._free: list[ClusterWorker] = []
        self._busy: dict[ClusterWorker, Future[Ran]] = {}
        self._failed_starts: dict[ClusterWorker, int] = {}
        self._stopped = False
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="cluster", daemon=True)
        for member in cluster.members:
            self._await(member)
        self._thread.start()

    def submit(self, calls: Sequence[PlannedCall]) -> None:
        """Queues calls; whoever is free has the next, whatever its device."""
        holders = self._cluster.holders
        queued = [
            _Queued(call, holders.setdefault(call.program, set())) for call in calls
        ]
        self._inbox.put(lambda: self._waiting.extend(queued))

    def close(self) -> None:
        """Stops each running call at its next steps, and waits for it."""
        self._stopped = True
        self._inbox.put(lambda: None)
        self._thread.join()
        for member in self._busy:
            with contextlib.suppress(Exception):  # it may be dead
                member.stop(self._plan)
        _, late = wait(self._busy.values(), WAITS)
        for member, future in self._busy.items():
            if future in late or future.exception() is not None:
                with contextlib.suppress(Exception):
                    member.kill()
                self._cluster.restart(member)
        self._cluster.watch(0, len(self._cluster.members))

    def _serve(self) -> None:
        """Does what comes in, one after the other, and gives out calls."""
        try:
            while not self._stopped:
                self._inbox.get()()
                self._give_out()
        except BaseException as error:  # the run's thread raises it
            failed: Future[list[Outcome]] = Future()
            failed.set_exception(error)
            self.events.put(failed)

    def _await(self, member: ClusterWorker) -> None:
        """Has a worker take part once its process is there."""
        about = member.about
        about.add_done_callback(
            lambda _: self._inbox.put(lambda: self._arrived(member, about))
        )

    def _arrived(self, member: ClusterWorker, about: Future) -> None:
        error = about.exception()
        if error is None:
            self._failed_starts.pop(member, None)
            if (fault := self._cluster.fault(about.result())) is not None:
                self._leave_out(member, fault)
            else:
                self._free.append(member)
            return
        tries = self._failed_starts[member] = self._failed_starts.get(member, 0) + 1
        if tries < DEATHS:
            self._cluster.restart(member)
            self._await(member)
            return
        self._leave_out(member, reason_of(error))

    def _leave_out(self, member: ClusterWorker, reason: str) -> None:
        self._cluster.leave_out(member)
        self._cluster.say(f"a worker of the cluster is left out: {reason}")
        if not self._cluster.members:
            raise RunFailed("no worker of the cluster is left")

    def _give_out(self) -> None:
        """Gives each free worker a call, as far as there are some for it."""
        for one in self._waiting:
            if one.memory and not self._has_place(
                one
            ):  # the worker that it waited for is lost
                one.memory = 0.0
        for member in list(self._free):
            call = self._next(member)
            if call is not None:
                self._free.remove(member)
                self._begin(member, call)
        self._cluster.watch(len(self._busy), len(self._cluster.members))

    def _next(self, member: ClusterWorker) -> _Queued | None:
        """A call that may begin; those that may not leave no outcome."""
        while not self._stopped and (call := self._choose(member)) is not None:
            self._waiting.remove(call)
            expected = _expected(member, call)
            if self._allowance.begins(self._pace.corrected(*expected)):
                return call
            self.events.put(call_ended([]))
        return None

    def _choose(self, member: ClusterWorker) -> _Queued | None:
        """The first whose program the worker has, that none has, or the first.

        What others have compiled they go on with, as long as there is something else.
        """
        fitting = [call for call in self._waiting if self._fits(member, call)]
        own = (call for call in fitting if member in call.holders)
        new = (call for call in fitting if not call.holders)
        return next(itertools.chain(own, new, fitting), None)

    def _fits(self, member: ClusterWorker, call: _Queued) -> bool:
        return not call.memory or member.about.result().memory > call.memory

    def _begin(self, member: ClusterWorker, call: _Queued) -> None:
        _, program, keys, _ = call.planned
        expected = _expected(member, call)
        call.holders.add(member)
        sent = call_of(program, keys, self._candidates, self._work)
        future = member.run(self._plan, self._data, self._shared, sent)
        self._busy[member] = future

        def ended() -> None:
            self._ended(member, call, future, expected)

        future.add_done_callback(lambda _: self._inbox.put(ended))

    def _ended(
        self,
        member: ClusterWorker,
        call: _Queued,
        future: "Future[Ran]",
        expected: PredictedCall,
    ) -> None:
        """A call has come back, or its worker is lost."""
        del self._busy[member]
        error = future.exception()
        if error is not None:
            self._lost(member, call, error)
            return
        self._free.append(member)
        ran = future.result()
        if ran.too_large is not None and self._smaller(member, call, ran.too_large):
            return
        self._learn(expected, ran)
        steps = len(self._work.starts) - self._work.begin
        losses = [one.loss for one in ran.outcomes]
        self.events.put(Steps(steps, losses[-1]))
        self.events.put(call_ended(ran.outcomes))

    def _lost(self, member: ClusterWorker, call: _Queued, error: BaseException) -> None:
        call.deaths += 1
        self._cluster.restart(member)
        self._await(member)
        if call.deaths < DEATHS:
            self._cluster.say(
                "a worker of the cluster is lost, its call goes to another: "
                f"{reason_of(error)}"
            )
            self._waiting.insert(0, call)
            return
        try:
            raise WorkerLost(f"{DEATHS} workers that trained it were lost") from error
        except WorkerLost as lost:
            _, program, keys, _ = call.planned
            self.events.put(call_ended(failures(program, keys, lost)))

    def _smaller(self, member: ClusterWorker, call: _Queued, reason: str) -> bool:
        """Whether a call that did not fit is tried otherwise."""
        memory = member.about.result().memory
        larger = dataclasses.replace(call, memory=memory)
        if self._has_place(larger):
            self._cluster.say(f"a call goes to a larger device: {reason}")
            self._waiting.insert(0, larger)
            return True
        is_split = split_call(self, call.planned, self._candidates, reason)
        if is_split:
            self.events.put(call_ended([]))
        return is_split

    def _has_place(self, call: _Queued) -> bool:
        there = [one for one in self._cluster.members if one.is_there]
        return any(self._fits(one, call) for one in there)

    def _learn(self, expected: PredictedCall, ran: Ran) -> None:
        if not is_whole(ran.outcomes):
            return
        for kind, predicted, measured in (
            ("compile", expected.compile, ran.compile_seconds),
            ("call", expected.call, ran.seconds),
        ):
            if predicted > 0:
                self._pace.learn(kind, predicted, measured)


def _expected(member: ClusterWorker, call: _Queued) -> PredictedCall:
    """Without the compilation where the worker has the program."""
    compile_seconds, seconds = call.planned.expected
    return PredictedCall(0.0 if member in call.holders else compile_seconds, seconds)
