"""A budget of time: what is planned for it, and what the clock decides."""

import dataclasses
import json
import math
import shutil
import time

import pytest
from calibrated import MADE_UP, keep_calibration
from corpus import write_corpus
from tasks import TINY, noise_task

from arch.spaces import SPACES
from jaxnas.clock import (
    PHASES_END,
    SEARCH_ENDS,
    TRAINING_ENDS,
    Clock,
    Deadline,
    seconds_of,
)
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.pipeline.budget import TRIED, fit_to_budget, outline, room_beside
from jaxnas.population.devices import local_machine
from jaxnas.population.planner import planner_for
from jaxnas.population.trainer import Trainer
from jaxnas.run import main
from jaxnas.training.lengths import PhaseLength, steps_of
from jaxnas.training.phase import FIRST
from jaxnas.training.rungs import rungs_of
from jaxnas.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2h30m", 9000), ("1m30s", 90)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds
    assert RunConfig(budget=text).budget_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-5m", "5d", "1s", "nan", "5mm"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match=r"^budget=.*(duration|at least)"):
        RunConfig(budget=text)


@pytest.mark.parametrize("budget", [60, 300, 1800, 36_000])
@pytest.mark.parametrize("step", [1e-3, 0.1, 3.0])  # seconds, of all that are tried
@pytest.mark.parametrize("compiling", [0.0, 40.0])
def test_what_is_planned_fits(budget, step, compiling):
    presets = (100, 400, 1600)

    def predicted(steps):
        return compiling + step * steps

    found = outline(predicted, presets, lambda share: share * budget, 10_000)
    first, *later = found.phases
    assert 20 <= first <= presets[0]
    assert list(found.phases) == sorted(set(found.phases))
    assert all(
        steps <= longest for steps, longest in zip(found.phases, presets, strict=False)
    )
    assert 4 <= found.population <= 50
    assert 1 <= found.generations <= 100
    a_generation = step * first / TRIED * found.population
    small = a_generation <= 0.15 * SEARCH_ENDS * budget * 1.01
    assert small or found.population == 4  # which is not made smaller
    if later:
        survivors = 5 * step / TRIED * later[0]
        assert survivors <= (PHASES_END - SEARCH_ENDS) * budget * 1.5
    # More time is never used for less.
    more = outline(predicted, presets, lambda share: 4 * share * budget, 10_000)
    assert more.phases[0] >= first
    assert more.phases[-1] >= found.phases[-1]


def test_a_small_space_has_no_larger_population():
    found = outline(lambda steps: 1e-3 * steps, (100,), lambda share: 1e4 * share, 8)
    assert found.population == 8


def test_what_the_user_has_settled_is_planned_with():
    def predicted(steps):
        return 0.01 * steps

    found = outline(
        predicted, (3000, 6000), lambda share: 600 * share, 99, fixed=True, population=7
    )
    assert (found.phases, found.population) == ((3000, 6000), 7)
    a_generation = 0.01 * 3000 / TRIED * 7
    assert (found.generations - 1) / 1.5 * a_generation <= SEARCH_ENDS * 600


def test_a_budget_is_planned_for_what_may_be_trained(tmp_path):
    def steps_planned(max_size):
        given = RunConfig(space="full", budget="5m", max_size=max_size)
        config = given.resolve("cpu")
        clock = Clock(300.0, tmp_path / f"{max_size}.json", time.monotonic())
        settings = TrainSettings(window=12, batch=4, learning_rate=1e-3)
        task, machine = noise_task(settings), local_machine(known=MADE_UP)
        planned = fit_to_budget(given, config, SPACES["full"], task, machine, clock)
        [first, *_] = planned.named_phases().values()
        return steps_of(first, settings) * planned.population

    assert steps_planned(4.0) > 2 * steps_planned(1e6)
    assert steps_planned(0.01) == steps_planned(1e6)  # there are none


def test_without_a_budget_nothing_is_late(tmp_path):
    clock = Clock(None, tmp_path / "budget.json", 0.0)
    assert clock.left() == math.inf
    deadline = Deadline(clock, SEARCH_ENDS, "evaluated")
    assert not deadline.passed()
    assert clock.decide("population", 3) == 3
    clock.save()
    assert list(tmp_path.iterdir()) == []


def test_what_the_clock_decided_holds_after_a_resume(tmp_path, monkeypatch):
    path, now = tmp_path / "budget.json", [1000.0]
    monkeypatch.setattr("jaxnas.clock.time.monotonic", lambda: now[0])
    clock = Clock(100.0, path, 990.0)
    deadline = Deadline(clock, SEARCH_ENDS, "evaluated")
    assert (clock.spent(), clock.left()) == (10.0, 90.0)
    assert not deadline.passed()
    now[0] = 990.01 + 100 * SEARCH_ENDS
    assert deadline.passed()
    assert deadline.ended is None
    deadline.end(4)
    now[0] = 5000.0  # a day later, in another process
    again = Clock(100.0, path, 5000.0)
    assert again.spent() == pytest.approx(100 * SEARCH_ENDS, abs=0.1)
    deadline = Deadline(again, SEARCH_ENDS, "evaluated")
    assert (deadline.passed(), deadline.ended) == (True, 4)
    later = Deadline(again, PHASES_END, "phase medium")
    assert not later.passed()
    now[0] = 5000.0 + 100
    assert later.passed()
    deadline.end(9)
    assert deadline.ended == 4


@pytest.fixture
def late_after(monkeypatch):
    """Ends the search's time once so many trainings are on record."""

    def end(run, number):
        def late(clock, share):
            path = run / "trainings.jsonl"
            known = path.read_bytes().count(b"\n") if path.exists() else 0
            return share == SEARCH_ENDS and known >= number

        monkeypatch.setattr(Clock, "late", late)

    return end


@pytest.mark.slow
def test_what_is_trained_when_the_time_ends_counts_also_after_a_kill(
    tmp_path, monkeypatch, late_after
):
    write_corpus(tmp_path / "code")
    keep_calibration(tmp_path / "cache")
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    flags = {
        "space": "minimal",
        "budget": "10h",
        "data": f"folder:{tmp_path / 'code'}",
        "phases": 8,
        "population": 5,
        "generations": 3,
        "window": 16,
        "batch": 4,
        "vocab-size": 300,
        "eval-windows": 8,
        "final-windows": 8,
        "final-steps": 0,
        "repeats": 0,
        "measure-top": 0,
        "latency": "estimate",
        "out": run,
    }
    given = [word for name, value in flags.items() for word in (f"--{name}", value)]
    given += ["--no-baseline"]
    late_after(run, 3)
    assert main(list(map(str, given))) == 0
    results = (run / "results.jsonl").read_bytes()
    trained = (run / "trainings.jsonl").read_bytes()
    assert results.count(b"\n") >= 3
    assert trained.count(b"\n") == 3
    # As if it had been killed before anything but the trainings was on the disk.
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    (run / "results.jsonl").write_bytes(b"")
    found = json.loads((run / "budget.json").read_text())
    ended = found["decided"].pop("evaluated")
    assert ended == results.count(b"\n")
    (run / "budget.json").write_text(json.dumps(found))
    late_after(run, 0)
    assert main(["--resume", str(run)]) == 0
    assert (run / "results.jsonl").read_bytes() == results
    assert (run / "trainings.jsonl").read_bytes() == trained


@pytest.mark.parametrize(
    "text", ["", "[]", '{"spent": 3}', '{"spent": "x", "decided": {}}']
)
def test_damaged_decisions_are_one_line(tmp_path, text):
    path = tmp_path / "budget.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"budget\.json is damaged"):
        Clock(60.0, path, 0.0)


@pytest.mark.parametrize(("slow", "taken"), [(1, [0, 1]), (1e6, []), (None, [1])])
def test_what_trains_beside_the_winner_has_a_part_of_its_time(tmp_path, slow, taken):
    settings = TrainSettings(window=12, batch=4, learning_rate=1e-3)
    trainer = Trainer(
        task=noise_task(settings),
        rungs=rungs_of({"fast": PhaseLength(samples=8, epochs=1)}, settings),
        eval_windows=8,
        machine=local_machine(known=MADE_UP),
    )
    models = [dataclasses.replace(TINY, hidden_dim=width) for width in (16, 32)]
    if slow is None:  # so that there is time for the last, but not for both
        planner = planner_for(trainer.machine, settings, trainer.rungs[0].steps, 0)
        each, both = (planner.plan(some).seconds for some in (models[1:], models))
        slow = 3600.0 * TRAINING_ENDS / 3 / ((each + both) / 2)
    timings = [{"stage": "x", "seconds": 9.0}, {"predicted": 1.0, "seconds": slow}]

    def room(clock, timings):
        return room_beside(clock, trainer, models, FIRST, timings)

    began = time.monotonic()
    clock = Clock(3600.0, tmp_path / "budget.json", began)
    found = room(clock, timings)
    assert found == [models[place] for place in taken]
    # Decided once, whatever a resume finds.
    again = Clock(3600.0, tmp_path / "budget.json", began)
    assert room(again, []) == found
    assert room(Clock(None, tmp_path / "none.json", began), timings) == models
