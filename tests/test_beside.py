"""Models that train beside the winner: as it is trained, in whatever time there is."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest
from tasks import TINY, noise_task

from jaxnas.clock import Clock
from jaxnas.pipeline import beside as module
from jaxnas.pipeline.beside import BaselinePlan, Beside
from jaxnas.pipeline.last_end import Fixed, Moving
from jaxnas.pipeline.winner import last_course, sums_of_splits
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.rungs import rungs_of
from jaxnas.training.settings import FINISH_DECAY, FINISH_WARMUP, TrainSettings
from jaxnas.training.single import TrainingFailed, continue_training, starting_state

SETTINGS = TrainSettings(
    window=12, batch=4, learning_rate=1e-2, decay_share=0.5, steps_per_call=4
)
TASK = noise_task(SETTINGS)
RUNGS = rungs_of(
    {
        "first": PhaseLength(samples=24, epochs=1),
        "second": PhaseLength(samples=64, epochs=1),
    },
    SETTINGS,
)
FIRST, MORE = RUNGS[-1].steps, 10
MODELS = [dataclasses.replace(TINY, hidden_dim=width) for width in (16, 32)]


def plan(folder, clock=None, failed=lambda model, trace: None, rungs=RUNGS):
    folder.mkdir(exist_ok=True)
    return BaselinePlan(
        folder=RunFolder(folder),
        clock=clock or Clock(None, folder / "budget.json", 0.0),
        task=TASK,
        rungs=rungs,
        windows=8,
        failed=failed,
    )


def trained(plan, models=MODELS, more=MORE):
    with Beside(plan, models, lambda *_: None) as beside:
        beside.wait_until_begun()
        beside.train_on_until(Fixed(more))
        return beside.results()


def alone(model, rungs=RUNGS, more=MORE, drawn=None):
    """The two trainings of a winner, one after the other."""
    first = dataclasses.replace(NOWHERE, rungs=rungs).first_course()
    params = None
    for course in (first, last_course(TASK, more, drawn, FINISH_DECAY, FINISH_WARMUP)):
        begun = starting_state(model, TASK, params)
        *_, (state, _) = continue_training(model, TASK, begun, *course)
        params = state.params
    return sums_of_splits(model, TASK, params, 8)


NOWHERE = BaselinePlan(
    folder=None, clock=None, task=TASK, rungs=RUNGS, windows=8, failed=print
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trained(plan(tmp_path_factory.mktemp("whole")))


def same(first, second):
    return all(
        np.array_equal(one, other)
        for split in ("validation", "test")
        for one, other in zip(first[split], second[split], strict=True)
    )


def test_each_is_trained_and_scored_as_it_would_be_alone(whole):
    for model, found in zip(MODELS, whole, strict=True):
        assert found[:3] == (model, FIRST + MORE, None)
        assert same(found.sums, alone(model))
        summary = found.to_summary(FIRST + MORE)
        assert summary["config"] == model.to_dict()
        metrics = found.sums["test"].metrics()
        assert summary["splits"]["test"] == dataclasses.asdict(metrics)


def test_one_after_the_other_they_train_the_same(tmp_path, whole):
    in_turn = dataclasses.replace(plan(tmp_path), at_once=1)
    with Beside(in_turn, MODELS, lambda *_: None) as beside:
        beside.train_on_until(Fixed(MORE))
        found = beside.results()
    for first, again in zip(whole, found, strict=True):
        assert first[:3] == again[:3]
        assert same(first.sums, again.sums)


@pytest.mark.parametrize("calls", [1, 4, 6, 7])
def test_stopped_and_begun_again_it_ends_the_same(tmp_path, monkeypatch, whole, calls):
    monkeypatch.setattr("jaxnas.pipeline.winner.SAVE_EVERY", 0.0)
    left, lock = [calls], threading.Lock()
    go_on = continue_training

    def killed(*arguments):
        for result in go_on(*arguments):
            yield result
            with lock:
                left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

    monkeypatch.setattr("jaxnas.pipeline.winner.continue_training", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(plan(tmp_path))
    monkeypatch.setattr("jaxnas.pipeline.winner.continue_training", go_on)
    for first, again in zip(whole, trained(plan(tmp_path)), strict=True):
        assert first[:3] == again[:3]
        assert same(first.sums, again.sums)


@pytest.mark.parametrize(
    "error",
    [
        TrainingFailed("the training loss is nan at step 3"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_that_fails_leaves_the_others_alone(tmp_path, monkeypatch, whole, error):
    go_on, failures = continue_training, []

    def failing(model, *arguments):
        if model == MODELS[0]:
            raise error
        return go_on(model, *arguments)

    monkeypatch.setattr("jaxnas.pipeline.winner.continue_training", failing)
    told = lambda model, trace: failures.append((model, trace))
    first, second = trained(plan(tmp_path, failed=told))
    assert (first.steps, first.sums) == (0, {})
    assert str(error) in first.reason
    summary = first.to_summary(FIRST + MORE)
    assert (summary["planned"], summary["splits"]) == (FIRST + MORE, {})
    assert same(second.sums, whole[1].sums)
    [(model, trace)] = failures
    assert model == MODELS[0]
    assert "Traceback" in trace


def test_an_error_beside_them_stops_them(tmp_path, monkeypatch):
    calls = []
    go_on = continue_training

    def slowly(*arguments):
        for result in go_on(*arguments):
            calls.append(result)
            time.sleep(0.05)
            yield result

    monkeypatch.setattr("jaxnas.pipeline.winner.continue_training", slowly)

    def fail():
        with Beside(plan(tmp_path), MODELS, lambda *_: None) as beside:
            beside.wait_until_begun()
            beside.train_on_until(Fixed(10_000))
            raise RuntimeError("elsewhere")

    with pytest.raises(RuntimeError, match="elsewhere"):
        fail()
    assert len(calls) < 50


class Late(Clock):
    """A clock whose time is over after so many questions."""

    questions = 0

    def left(self, share=1.0):
        self.questions += 1
        return 0.0 if self.questions > self.number else 3600.0


def late_after(folder, number):
    folder.mkdir(exist_ok=True)
    clock = Late(3600.0, folder / "budget.json", time.monotonic())
    clock.number = number
    return clock


@pytest.mark.parametrize(
    ("number", "steps"), [(0, 0), (2, 8), (4, 16), (7, 20), (8, 24)]
)
def test_the_clock_cuts_it_and_a_resume_cuts_it_there_again(tmp_path, number, steps):
    folder, model = tmp_path / "run", MODELS[:1]
    [found] = trained(plan(folder, late_after(folder, number)), model)
    assert found.steps == steps
    if not number:
        assert found.reason == "there was no time to train it"
        return
    assert found.reason is None
    for path in folder.iterdir():  # the checkpoints are gone, the decisions are not
        if path.is_dir():
            path.rename(tmp_path / "gone")
    again = late_after(folder, 10**6 if number % 4 else 0)
    [second] = trained(plan(folder, again), model)
    assert second[:3] == found[:3]
    assert same(second.sums, found.sums)


def test_fewer_steps_where_the_time_is_for_fewer(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    clock = late_after(folder, 10**6)
    monkeypatch.setattr(module, "_seconds_of_a_step", lambda times: 3600.0 / 7.5)
    monkeypatch.setattr("jaxnas.pipeline.last_end._OFF", 10)  # the end is not moved
    [found] = trained(plan(folder, clock), MODELS[:1])
    assert found.steps == FIRST + 7
    assert same(found.sums, alone(MODELS[0], more=7, drawn=MORE))


def test_it_ends_where_the_winner_does_on_the_windows_that_the_winner_has(tmp_path):
    folder, clock = tmp_path / "run", late_after(tmp_path / "run", 10**6)
    winners = Moving(clock, "final_steps", MORE, 2 * MORE)
    with Beside(plan(folder, clock), MODELS[:1], lambda *_: None) as beside:
        beside.wait_until_begun()
        winners.now = MORE  # it is never asked: it ends as planned
        beside.train_on_until(winners)
        [found] = beside.results()
    assert found.steps == FIRST + MORE
    assert same(found.sums, alone(MODELS[0], drawn=2 * MORE))
