"""Calls on the workers of a cluster, here threads: who has which, and what is lost."""

import dataclasses
import io
import threading
import time
from concurrent.futures import Future

import chex
import jax
import numpy as np
import pytest
from rich.console import Console
from tasks import TINY, executed, noise_task, plan_of

from jaxnas.errors import RunFailed
from jaxnas.population.call import Outcome, Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import Machine, local_machine
from jaxnas.population.executor import execute
from jaxnas.population.pace import Allowance, Pace
from jaxnas.population.planner import planner_for
from jaxnas.population.program import Program
from jaxnas.population.remote_call import About, Ran, Session
from jaxnas.report.progress import Progress
from jaxnas.storage.jsonl import Lines
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import batch_starts
from jaxnas.training.scoring import Compression
from jaxnas.training.settings import TrainSettings

SETTINGS = TrainSettings(window=12, batch=4, learning_rate=3e-4, steps_per_call=3)
SMALL = dataclasses.replace(TINY, hidden_dim=16)
CONFIGS = (TINY, SMALL, TINY, SMALL)
BIG, LITTLE = Program(shape=TINY), Program(shape=SMALL)
PLAN = plan_of((BIG, (0, 2)), (LITTLE, (1, 3)))
PAIR = Program(shape=TINY, form="looped", lanes=2, vmapped=True)


def work_of(task):
    return Work(
        task=task,
        starts=batch_starts(0, 600, SETTINGS, PhaseLength(samples=32, epochs=1)),
        windows=task.windows("validation", 9),
        wanted={place: [Compression("fp16", 0.0)] for place in range(4)},
    )


class Lost(Exception):
    """What a worker that has died leaves."""


class Member:
    """A worker that runs calls in a thread; `runs` makes a `Ran` of a call."""

    def __init__(self, runs, memory=1e9, starts=None):
        self._runs, self._memory, self._starts = runs, memory, starts
        self.calls, self.stopped, self.restarts = [], threading.Event(), -1
        self.restart()

    def restart(self):
        self.restarts += 1
        self.about = Future()
        if self._starts is not None:
            self.about.set_exception(self._starts)
        else:
            self.about.set_result(About("cpu", "cpu", self._memory, "1", "1"))

    @property
    def is_there(self):
        return self.about.done() and self.about.exception() is None

    def run(self, plan, data, shared, call):
        self.calls.append(call)
        future = Future()

        def work():
            try:
                future.set_result(self._runs(self, data, shared, call))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=work).start()
        return future

    def stop(self, plan):
        self.stopped.set()

    def kill(self):
        self.stopped.set()


class Cluster:
    """Members without Ray."""

    def __init__(self, *members, fault=None):
        self.members, self.told, self.busy = list(members), [], []
        self.fault = lambda about: fault
        self.say, self.watch = self.told.append, lambda *now: self.busy.append(now)
        self.holders, self.leave_out = {}, self.members.remove

    def restart(self, member):
        for holders in self.holders.values():
            holders.discard(member)
        member.restart()

    def grow(self):
        """None joins."""

    def next_plan(self):
        return 1

    def data(self, dataset):
        return dataset

    def shared(self, work):
        return work


def left(call, **changes):
    outcome = Outcome(key=0, program=call.program, loss=1.0, **changes)
    keys = [key for key in call.keys if key is not None]
    return [dataclasses.replace(outcome, key=key) for key in keys]


def quick(member, data, shared, call):
    return Ran(left(call), None, 0.1, 0.2)


def outcomes_of(cluster, plan=PLAN, configs=CONFIGS, **options):
    task = noise_task(SETTINGS)
    compiler = Compiler(task, 9, None)
    options = {"devices": jax.local_devices()[:1], "cluster": cluster} | options
    return executed(plan, configs, work_of(task), compiler, **options)


def test_workers_leave_what_threads_leave(monkeypatch):
    # As in test_execution.
    jax.config.update("jax_debug_key_reuse", False)
    session = Session({}, None)

    def train(member, data, shared, call):
        return session.run(data, shared, call, lambda: False)

    told = []
    found = outcomes_of(
        Cluster(Member(train)), report=lambda *now: told.append(now[:2])
    )
    wanted = outcomes_of(None)
    jax.config.update("jax_debug_key_reuse", True)
    assert told == [(8, 32), (16, 32), (24, 32), (32, 32)]
    by_key = {one.key: one for one in wanted}
    assert sorted(one.key for one in found) == sorted(by_key)
    for one in found:
        assert one.error is None
        chex.assert_trees_all_equal(one.params, by_key[one.key].params)
        assert one.metrics == by_key[one.key].metrics
        assert one.curve == by_key[one.key].curve


def test_each_worker_keeps_to_its_programs():
    barrier = threading.Barrier(2, timeout=30)

    def together(member, data, shared, call):
        barrier.wait()
        return quick(member, data, shared, call)

    cluster = Cluster(Member(together), Member(together))
    assert len(outcomes_of(cluster)) == 4
    programs = [{call.program for call in one.calls} for one in cluster.members]
    assert programs in ([{BIG}, {LITTLE}], [{LITTLE}, {BIG}])
    assert max(busy for busy, _ in cluster.busy) == 2
    assert cluster.busy[-1] == (0, 2)


def test_a_lost_worker_costs_its_call_once():
    deaths = [Lost("gone\nin detail")]

    def dies(member, data, shared, call):
        if deaths:
            raise deaths.pop()
        return quick(member, data, shared, call)

    cluster = Cluster(Member(dies), Member(dies))
    found = outcomes_of(cluster)
    assert sorted(one.key for one in found) == [0, 1, 2, 3]
    assert [one.error for one in found] == [None] * 4
    assert sum(len(one.calls) for one in cluster.members) == 5
    assert sorted(one.restarts for one in cluster.members) == [0, 1]
    [told] = cluster.told
    assert told.endswith("its call goes to another: Lost: gone")


def test_a_call_that_kills_its_workers_fails_alone():
    def dies(member, data, shared, call):
        if 1 in call.keys:
            raise Lost("gone")
        return quick(member, data, shared, call)

    found = outcomes_of(Cluster(Member(dies), Member(dies)))
    errors = {one.key: str(one.error) for one in found if one.error}
    assert errors == {1: "3 workers that trained it were lost"}
    assert len(found) == 4


def too_large(most):
    def run(member, data, shared, call):
        memory = member.about.result().memory
        if call.program.lanes > 1 and memory < most:
            return Ran(left(call, error=MemoryError("full")), "full", 0.0, 0.0)
        return quick(member, data, shared, call)

    return run


TOGETHER = plan_of((PAIR, (0, 1)))
TWO = (TINY, SMALL)


def test_what_does_not_fit_goes_to_a_larger_device():
    run, said = too_large(2e9), []
    cluster = Cluster(Member(run), Member(run, memory=3e9))
    cluster.members[1].about = waiting = Future()  # the small one has it first
    small = cluster.members[0]

    def arrive():
        while not small.calls:
            time.sleep(0.01)
        waiting.set_result(About("cpu", "cpu", 3e9, "1", "1"))

    def first(member, data, shared, call):
        while not waiting.done():
            time.sleep(0.01)
        return run(member, data, shared, call)

    small._runs = first
    threading.Thread(target=arrive).start()
    found = outcomes_of(cluster, TOGETHER, TWO, on_split=said.append)
    assert [one.error for one in found] == [None, None]
    assert [len(one.calls) for one in cluster.members] == [1, 1]
    assert said == []
    assert cluster.told == ["a call goes to a larger device: full"]


def test_what_fits_nowhere_is_split():
    run, said = too_large(9e9), []
    cluster = Cluster(Member(run), Member(run))
    found = outcomes_of(cluster, TOGETHER, TWO, on_split=said.append)
    assert sorted(one.key for one in found) == [0, 1]
    assert [one.error for one in found] == [None, None]
    [(program, smaller, reason, calls)] = said
    assert (program.lanes, smaller.lanes, reason, calls) == (2, 1, "full", 2)


def test_a_worker_of_another_version_takes_no_part():
    cluster = Cluster(Member(quick), fault="it has jax 0.1, the run jax 0.2")
    with pytest.raises(RunFailed, match="no worker of the cluster is left"):
        outcomes_of(cluster)
    assert cluster.told == [
        "a worker of the cluster is left out: it has jax 0.1, the run jax 0.2"
    ]


def test_a_worker_that_cannot_start_is_left_out():
    broken = Member(quick, starts=Lost("no module"))
    cluster = Cluster(broken, Member(quick))
    assert len(outcomes_of(cluster)) == 4
    assert broken.restarts == 2
    assert broken not in cluster.members


def test_taking_no_more_stops_the_workers():
    def long(member, data, shared, call):
        if 0 not in call.keys:
            assert member.stopped.wait(30)
        return quick(member, data, shared, call)

    cluster = Cluster(Member(long), Member(long))
    found, begin = [], time.monotonic()
    task = noise_task(SETTINGS)

    def take(outcome):
        found.append(outcome.key)
        return False

    execute(
        PLAN,
        dict(enumerate(CONFIGS)),
        work_of(task),
        Compiler(task, 9, None),
        take,
        devices=jax.local_devices()[:1],
        cluster=cluster,
    )
    assert found == [0]
    assert time.monotonic() - begin < 20
    assert not [one for one in threading.enumerate() if one.name == "cluster"]


def test_seconds_are_learned_and_decide_what_begins():
    pace = Pace()
    found = outcomes_of(Cluster(Member(quick)), pace=pace)
    assert len(found) == 4
    # Predicted are 1 s a program and half of one a call: 0.1 and 0.2 were measured.
    assert pace.factor("compile") == pytest.approx(0.1)
    assert pace.factor("call") == pytest.approx(0.4)
    none = Allowance(begins=lambda seconds: False)
    assert outcomes_of(Cluster(Member(quick)), allowance=none) == []


def test_states_go_to_the_workers():
    task = noise_task(SETTINGS)
    states = {0: np.ones(3)}
    work = dataclasses.replace(work_of(task), begin=4, begun=states.__getitem__)
    member = Member(quick)
    plan = plan_of((BIG, (0,)))
    compiler = Compiler(task, 9, None)
    devices = jax.local_devices()[:1]
    options = {"devices": devices, "cluster": Cluster(member)}
    executed(plan, (TINY,), work, compiler, **options)
    assert member.calls[0].begun == states


def test_cores_of_a_cluster_change_no_plan():
    alone, many = local_machine(), local_machine(cluster=200)
    assert (many.number, many.workers, many.cores) == (1, 200, 200)
    plans = [
        planner_for(machine, SETTINGS, 50, 0.0).plan([TINY, SMALL])
        for machine in (alone, many)
    ]
    assert plans[0].buckets == plans[1].buckets


def test_a_plan_counts_the_accelerators_of_a_cluster():
    class Accelerator:
        platform = "gpu"

    machine = Machine(devices=(Accelerator(),), limit=1e9, cluster=8)
    assert (machine.number, machine.workers) == (8, 1)
    assert planner_for(machine, SETTINGS, 50, 0.0).speeds == (1.0,) * 8


def test_the_bar_says_how_many_workers_are_busy(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with Lines(tmp_path / "timings.jsonl") as timings:
        with Progress(console, 16, timings) as progress:
            progress.begin_generation(0)
            progress.workers(3, 4)
        assert "3 of 4 workers busy" in out.getvalue()
