"""What there is time for as a run goes on, and that a resume decides the same."""

import math
import types

import pytest
from tasks import TINY

from jaxnas.clock import SEARCH_ENDS, TRAINING_ENDS, Clock, Deadline
from jaxnas.pipeline import last_steps as module
from jaxnas.pipeline.last_end import Moving, enough_by, last_end
from jaxnas.pipeline.last_steps import last_steps
from jaxnas.pipeline.room import most_that, room_of, those_that


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still until it is moved; it began at 0."""
    seconds = [0.0]
    monkeypatch.setattr("jaxnas.clock.time.monotonic", lambda: seconds[0])
    return seconds


def test_a_training_ends_with_its_part_of_the_budget_and_after_a_resume(tmp_path, now):
    path = tmp_path / "budget.json"
    enough = enough_by(Clock(100.0, path, 0.0), "ended")
    assert not enough(40)
    now[0] = 96.0
    assert enough(60)
    now[0] = 0.0
    again = enough_by(Clock(100.0, path, 0.0), "ended")
    assert [again(done) for done in (40, 60, 80)] == [False, True, True]
    assert not enough_by(Clock(None, tmp_path / "none.json", 0.0), "ended")(10**9)


def test_most_that():
    assert most_that(lambda number: number <= 3, 9) == 3
    assert most_that(lambda number: True, 9) == 9
    assert most_that(lambda number: False, 9) == 0


def test_those_that_fit_together_the_first_first():
    seconds = [5, 9, 4, 1, 7]
    fit = lambda places: sum(seconds[place] for place in places) <= 10
    assert those_that(fit, range(5)) == [0, 2, 3]
    assert those_that(lambda places: True, range(5)) == [0, 1, 2, 3, 4]
    assert those_that(lambda places: False, range(5)) == []


class Made:
    """An evaluator whose candidates take the seconds that they are called by."""

    def __init__(self, known=()):
        self.known = known
        self.trainer = types.SimpleNamespace(predicted_seconds=sum)

    def untrained(self, configs):
        return [config for config in configs if config not in self.known]


def clock_of(tmp_path, budget=100.0):
    return Clock(budget, tmp_path / "budget.json", 0.0)


def test_of_a_generation_those_are_trained_that_there_is_time_for(tmp_path, now):
    clock = clock_of(tmp_path)
    deadline = Deadline(clock, SEARCH_ENDS, "evaluated")
    room = room_of(clock, Made(known=(1000,)), deadline)
    now[0] = 100 * SEARCH_ENDS - 30  # 30 seconds are left
    assert room("generation 0, last 4", [10, 25, 1000, 20]) == [0, 2, 3]
    now[0] = 60.0
    assert room("generation 0, last 1", [25]) == []
    assert room("generation 1, last 2", [1000, 1]) == [0]
    # A resume decides the same, whatever the time is then.
    again = clock_of(tmp_path)
    deadline = Deadline(again, SEARCH_ENDS, "evaluated")
    room = room_of(again, Made(), deadline)
    assert room("generation 0, last 4", [10, 25, 1000, 20]) == [0, 2, 3]
    assert room("generation 0, last 1", [25]) == []
    deadline.end(3)
    # What was never decided before the end is looked up, and not trained.
    assert list(room("generation 2, last 2", [1, 2])) == [0, 1]
    assert deadline.left() == -math.inf


def test_without_a_budget_there_is_time_for_all(tmp_path):
    clock = clock_of(tmp_path, None)
    room = room_of(clock, None, Deadline(clock, SEARCH_ENDS, "evaluated"))
    assert list(room("generation 0", [1e9, 1e9])) == [0, 1]


CONFIG = types.SimpleNamespace(final_steps=300, decay_share=0.2)


def trained_on(clock, now, seconds, steps, begin=0, end=None):
    """Steps of a last training from `begin`, by calls of 20, and where it ends."""
    end, done = end or last_end(CONFIG, clock, steps), begin
    total = end.at(done)
    while done < total:
        size = min(20, total - done)
        now[0] += size * seconds(done)
        done += size
        total = end.at(done)
    end.ended(done)
    assert end.now == total
    return done, total


def opened(tmp_path, budget=1000.0):
    clock = clock_of(tmp_path, budget)
    clock.decide("open", ["final_steps"])
    return clock


@pytest.mark.parametrize("factor", [0.7, 0.97, 1.0, 1.03, 1.7, 4.0])
def test_a_last_training_ends_in_time_whatever_a_step_takes(tmp_path, now, factor):
    clock = opened(tmp_path)
    now[0] = 500.0
    steps = int(clock.left(TRAINING_ENDS))  # a second each, as they were measured
    done, total = trained_on(clock, now, lambda done: factor, steps)
    assert done == total
    assert -20 * factor <= clock.left(TRAINING_ENDS) <= 0.05 * steps
    assert done == pytest.approx(steps / factor, rel=0.06, abs=20)


@pytest.mark.parametrize("at", [100, 200, 300, 400])
def test_a_last_training_ends_in_time_where_it_becomes_slower(tmp_path, now, at):
    clock = opened(tmp_path)
    now[0] = 500.0
    slower = lambda done: 1.0 if done < at else 3.0
    trained_on(clock, now, slower, 420)
    assert clock.left(TRAINING_ENDS) >= -60.1  # a call


@pytest.mark.parametrize(("at", "longer"), [(150, True), (240, True), (360, False)])
def test_where_it_becomes_faster_steps_are_added_until_the_rate_is_low(
    tmp_path, now, at, longer
):
    """Of 420 steps the last half decay; in the last quarter none are added."""
    clock = opened(tmp_path)
    now[0] = 1000 * TRAINING_ENDS - 420
    done, _ = trained_on(clock, now, lambda done: 1.0 if done < at else 0.5, 420)
    assert (done > 420) is longer
    if longer:
        assert clock.left(TRAINING_ENDS) <= 0.1 * 420


def test_a_resume_moves_the_end_where_it_was_moved(tmp_path, now):
    clock = opened(tmp_path)
    now[0] = 500.0
    slower = lambda done: 1.0 if done < 200 else 2.0
    done, _ = trained_on(clock, now, slower, 420)
    assert clock.decided("final_steps moved 1") is not None
    for begin in (0, 100, 200, 220, 240):
        again = clock_of(tmp_path, 1000.0)
        # There is all the time, and still it ends there.
        again._before = 500.0 - now[0]
        assert trained_on(again, now, lambda done: 1e-3, 420, begin)[0] == done


def test_the_first_call_of_a_resume_which_compiles_moves_nothing(tmp_path, now):
    clock = opened(tmp_path)
    now[0] = 500.0
    steps = int(clock.left(TRAINING_ENDS))
    now[0] = 700.0  # of another process, 200 steps are done
    slow = lambda done: 2.0 if done == 200 else 1.0
    done, total = trained_on(clock, now, slow, steps, begin=200)
    assert done == total
    assert steps - 25 <= done <= steps


def test_without_a_budget_it_ends_as_it_was_set(tmp_path, now):
    for clock in (clock_of(tmp_path, None), clock_of(tmp_path, 1000.0)):
        now[0] = 990.0
        end = last_end(CONFIG, clock, 300)
        assert end.most == 300
        assert trained_on(clock, now, lambda done: 10.0, 300) == (300, 300)


def test_one_beside_the_winner_ends_where_the_winner_does(tmp_path, now):
    clock = opened(tmp_path)
    now[0] = 500.0
    where = [200]
    end = Moving(clock, "beside", 200, 400, lambda: where[0])
    done, _ = trained_on(clock, now, lambda done: 0.1, 200, end=end)
    assert done == 200  # there is time for more
    now[0] = 500.0

    def shortened(done):
        where[0] = 150 if done >= 100 else 200
        return 0.1

    end = Moving(clock, "another", 200, 400, lambda: where[0])
    assert trained_on(clock, now, shortened, 200, end=end)[0] == 150


def test_last_steps_are_as_many_as_there_is_time_for(tmp_path, now, monkeypatch):
    monkeypatch.setattr(module, "seconds_of_a_step", lambda *_: 0.5)
    clock = opened(tmp_path)
    now[0] = 1000 * TRAINING_ENDS - 100
    assert last_steps(CONFIG, clock, TINY, None, None) == 200
    now[0] = 990.0
    assert last_steps(CONFIG, clock, TINY, None, None) == 200  # decided
