"""What a run learns of its own pace, and what a plan may still begin by it."""

import threading
import time

import jax
import pytest
from tasks import TINY, executed, noise_task, plan_of

from jaxnas.population import pace as module
from jaxnas.population.call import Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.cost_model import fitted_rates
from jaxnas.population.pace import Allowance, NoTime, Pace
from jaxnas.population.program import Program
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import batch_starts
from jaxnas.training.settings import TrainSettings

SETTINGS = TrainSettings(window=12, batch=4, learning_rate=1e-3, steps_per_call=3)
ALONE = Program(shape=TINY)


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still until it is moved."""
    seconds = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: seconds[0])
    return seconds


def test_nothing_is_corrected_before_anything_is_known():
    pace = Pace(2)
    assert (pace.factor("compile"), pace.factor("call")) == (1.0, 1.0)
    assert pace.corrected(3.0, 4.0) == 7.0
    assert pace.slower_than((2.0, 3.0)) == 1.0


def test_a_factor_is_a_ratio_of_sums_of_its_own_kind():
    pace = Pace(2)
    pace.learn("compile", 10.0, 30.0)
    assert pace.factor("call") == 3.0  # until it is known
    pace.learn("call", 1.0, 9.0)
    pace.learn("call", 9.0, 11.0)
    assert (pace.factor("compile"), pace.factor("call")) == (3.0, 2.0)
    assert pace.corrected(1.0, 1.0) == 5.0


def test_what_was_long_ago_is_forgotten():
    pace = Pace(2)
    pace.learn("call", 1.0, 100.0)
    for _ in range(module.RECENT):
        pace.learn("call", 1.0, 2.0)
    assert pace.factor("call") == 2.0


def test_how_much_slower_than_planned():
    pace = Pace(2)
    pace.learn("compile", 10.0, 30.0)
    pace.learn("call", 10.0, 40.0)
    assert pace.slower_than((3.0, 4.0)) == pytest.approx(1.0)
    assert pace.slower_than((1.5, 2.0)) == pytest.approx(2.0)


def test_seconds_are_shared_by_what_runs_at_once(now):
    pace = Pace(2)
    with pace.timed("call", 10.0):
        now[0] += 4  # alone
        with pace.timed("call", 1.0), pace.timed("compile", 1.0):
            with pace.timed("compile", 1.0):
                now[0] += 6  # four on two cores
            now[0] += 3  # three
        now[0] += 1
    assert pace.factor("call") == pytest.approx((4 + 3 + 2 + 1 + 3 + 2) / 11)
    assert pace.factor("compile") == pytest.approx((3 + 2 + 3) / 2)


def test_what_does_not_share_is_taken_as_it_is(now):
    pace = Pace()
    with pace.timed("call", 1.0), pace.timed("call", 1.0), pace.timed("compile", 1.0):
        now[0] += 5
    assert (pace.factor("call"), pace.factor("compile")) == (5.0, 5.0)


def test_what_fails_or_ends_early_teaches_nothing(now):
    pace = Pace(2)
    with pytest.raises(ValueError, match="no"), pace.timed("call", 1.0):
        raise ValueError("no")
    with pace.timed("call", 1.0) as timing:
        now[0] += 9
        timing.whole = False
    with pace.timed("compile", 0.0):
        now[0] += 9
    assert pace.factor("call") == 1.0
    with pace.timed("call", 1.0):  # those before have ended
        now[0] += 3
    assert pace.factor("call") == 3.0


def work():
    return Work(
        task=noise_task(SETTINGS),
        starts=batch_starts(0, 600, SETTINGS, PhaseLength(samples=24, epochs=1)),
        windows=noise_task(SETTINGS).windows("validation", 8),
        wanted={},
    )


def compiler(pace=None):
    return Compiler(noise_task(SETTINGS), 8, None, 2, pace, fitted_rates())


def run(compiler, members, **options):
    plan = plan_of((ALONE, tuple(range(members))))
    devices = jax.local_devices()[:1]
    found = executed(
        plan, [TINY] * members, work(), compiler, devices=devices, **options
    )
    return [outcome.key for outcome in found]


def test_a_run_teaches_how_long_things_take():
    pace = Pace(2)
    assert run(compiler(pace), 2, pace=pace) == [0, 1]
    assert pace.factor("compile") != 1.0
    assert pace.factor("call") not in (1.0, pace.factor("compile"))


def test_what_may_not_begin_is_not_waited_for_and_may_be_asked_again():
    ready, asked = compiler(), []

    def never(seconds):
        asked.append(seconds)
        return False

    assert run(ready, 3, allowance=Allowance(begins=never)) == []
    assert set(asked) == {1.0 + 1.0 / 3}  # the program and one call of three
    assert run(ready, 3) == [0, 1, 2]
    calls = iter([True, False, True])
    once = Allowance(begins=lambda seconds: next(calls))
    assert run(ready, 3, allowance=once) == [0, 2]


def test_what_runs_is_stopped_when_all_is_over(monkeypatch):
    monkeypatch.setattr("jaxnas.population.executor.LOOKS", 0.01)
    begun, go_on = threading.Event(), threading.Event()
    ready = compiler()

    def begins(seconds):
        begun.set()
        return True

    def slow(self, program, device, begins):
        begins()
        go_on.wait(10)
        raise NoTime

    monkeypatch.setattr(Compiler, "_compile", slow)
    begin = time.monotonic()
    allowance = Allowance(begins=begins, over=begun.is_set)
    assert run(ready, 3, allowance=allowance) == []
    assert time.monotonic() - begin < 5
    go_on.set()
