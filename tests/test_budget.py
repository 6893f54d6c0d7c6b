"""A budget of time: what is planned for it, and what the clock decides."""

import itertools
import json
import math
import shutil
import time
import types

import jax
import pytest
from calibrated import keep_calibration
from corpus import write_corpus
from tasks import noise_task

from arch.cost import size_mib
from arch.spaces import SPACES
from jaxnas.clock import (
    GRACE,
    NO_LAST,
    PHASES_END,
    SEARCH_ENDS,
    TRAINING_ENDS,
    Clock,
    Deadline,
    seconds_of,
)
from jaxnas.config import RunConfig, make_config, read_toml
from jaxnas.errors import UsageError
from jaxnas.pipeline.budget import (
    FEWEST_STEPS,
    LONGEST,
    TRIED,
    Forecast,
    fit_to_budget,
    outline,
    planned_by,
    with_later_phases,
    words,
)
from jaxnas.population.devices import local_machine
from jaxnas.population.pace import Pace
from jaxnas.run import main
from jaxnas.training.lengths import steps_of
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


def outlined(budget, forecast, presets=(200, 400), distinct=10_000, **given):
    given = {"enough": 200, "population": 12} | given
    return outline(forecast, presets, lambda share: share * budget, distinct, **given)


@pytest.mark.parametrize("budget", [60, 300, 1800, 36_000])
@pytest.mark.parametrize("a_step", [1e-4, 1e-2, 0.25])  # seconds of one candidate
@pytest.mark.parametrize("base", [0.0, 4.0])
def test_what_is_planned_fits(budget, a_step, base):
    forecast = Forecast(base=base, a_step=a_step)
    found = outlined(budget, forecast, presets=(200, 400, 800))
    first, *later = found.phases
    assert FEWEST_STEPS <= first <= LONGEST * 200
    assert list(found.phases) == sorted(set(found.phases))
    assert found.candidates <= found.population * found.generations
    search = SEARCH_ENDS * budget
    needs = found.candidates * a_step * first
    needs += base * (found.candidates + min(TRIED, found.candidates)) / 2
    assert found.candidates == 1 or needs <= search
    for before, steps in itertools.pairwise([first, *later]):
        survivors = 4 * a_step * (steps - 0.8 * before)
        assert survivors <= (PHASES_END - SEARCH_ENDS) * budget / 2 * 1.001
    if found.poor:
        assert needs + (base + a_step * first) * 8 > 0.8 * search
    # More time is never used for less.
    more = outlined(4 * budget, forecast, presets=(200, 400, 800))
    assert more.phases[0] >= first
    assert more.candidates >= found.candidates or more.phases[0] > first


@pytest.mark.parametrize(
    ("seconds", "steps", "candidates"),
    [
        (8, 50, 4),  # the search's, at a second a candidate and a second 100 steps
        (16, 50, 9),
        (30, 50, 21),
        (60, 150, 24),
        (90, 200, 30),
        (160, 200, 55),
        (360, 480, 60),
        (3600, 2000, 157),
    ],
)
def test_first_candidates_then_steps_then_candidates_then_steps(
    seconds, steps, candidates
):
    forecast = Forecast(base=1.0, a_step=0.01)
    found = outlined(seconds / SEARCH_ENDS, forecast)
    assert (found.phases[0], found.candidates) == (steps, candidates)
    assert found.poor == (seconds == 8)


def test_a_candidate_is_not_compiled_for_a_few_steps():
    quick, slow = (Forecast(base=base, a_step=0.01) for base in (0.5, 3.0))
    assert outlined(40 / SEARCH_ENDS, quick).phases[0] == 112
    assert outlined(40 / SEARCH_ENDS, slow).phases[0] == 150  # half as long


def test_a_forecast_is_of_what_a_generation_is_predicted_to_take():
    found = Forecast.of(lambda steps: 24.0 + 1.2 * steps, 100)
    assert found.base == pytest.approx(2.0)
    assert found.a_step == pytest.approx(0.1)
    for candidates in (6, 12, 30):
        steps = found.steps(600.0, candidates)
        assert found.candidates(600.0, steps) == pytest.approx(candidates)


def test_a_small_space_has_no_more_candidates():
    forecast = Forecast(base=0.0, a_step=1e-4)
    found = outlined(1e4, forecast, presets=(100,), distinct=8)
    assert (found.candidates, found.generations) == (8, 1)


def test_what_the_user_has_settled_is_planned_with():
    forecast = Forecast(base=0.0, a_step=1e-3)
    found = outlined(600, forecast, presets=(3000, 6000), fixed=True, population=7)
    assert (found.phases, found.population) == ((3000, 6000), 7)
    assert found.candidates == int(0.9 * SEARCH_ENDS * 600 / 3)


def slow_by(factor, monkeypatch):
    """A small start that finds a machine this many times slower than predicted."""

    def probe(pace, *_):
        pace.learn("compile", 1.0, factor)
        pace.learn("call", 1.0, factor)

    monkeypatch.setattr("jaxnas.pipeline.budget.probe", probe)


def planned_with(clock, pace, said=None, budget="20m", **given):
    given = RunConfig(space="full", budget=budget, **given)
    config = given.resolve("cpu")
    settings = TrainSettings(window=12, batch=4, learning_rate=1e-3)
    space, task = SPACES["full"], noise_task(settings)
    fields = {"vocab_size": task.dataset.vocab_size, "max_seq_length": 12}
    drawn = [
        space.decode(genome, **fields) for genome in space.sample(jax.random.key(1), 99)
    ]
    small = [one for one in drawn if size_mib(one) <= config.max_size]
    planned, _ = fit_to_budget(
        given,
        config,
        types.SimpleNamespace(space=space, feasible=space.distinct_count),
        task,
        local_machine(),
        clock,
        pace,
        lambda config: (small or drawn)[: config.population],
        [].append if said is None else said.append,
    )
    [first, *_] = planned.named_phases().values()
    return planned, steps_of(first, settings)


def test_a_budget_is_planned_for_what_may_be_trained(tmp_path, monkeypatch):
    slow_by(1.0, monkeypatch)

    def trained(max_size):
        clock = Clock(1200.0, tmp_path / f"{max_size}.json", time.monotonic())
        planned, steps = planned_with(clock, Pace(), max_size=max_size)
        return planned.population * planned.generations * steps

    assert trained(4.0) > 2 * trained(1e6)
    assert trained(0.01) == pytest.approx(trained(1e6), rel=0.1)  # there are none


def test_the_plan_is_for_the_pace_that_is_found(tmp_path, monkeypatch):
    found = {}
    for factor in (0.5, 2.0, 60.0):
        slow_by(factor, monkeypatch)
        clock = Clock(1200.0, tmp_path / f"{factor}.json", time.monotonic())
        planned, steps = planned_with(clock, Pace(), said := [], max_size=4.0)
        found[factor] = planned.population * planned.generations * steps, said
    assert found[0.5][0] > 1.5 * found[2.0][0] > 0
    assert (found[0.5][1], found[2.0][1]) == ([], [])
    [line] = found[60.0][1]
    assert "there is time for about" in line
    assert "a smaller space (--space)" in line


def test_a_resume_has_the_plan_and_the_pace_of_before(tmp_path, monkeypatch):
    path = tmp_path / "budget.json"
    slow_by(3.0, monkeypatch)
    first = planned_with(Clock(1200.0, path, time.monotonic()), Pace())
    monkeypatch.setattr("jaxnas.pipeline.budget.probe", None)  # not a second time
    again = planned_with(Clock(1200.0, path, time.monotonic()), pace := Pace())
    assert again == first
    assert (pace.factor("compile"), pace.factor("call")) == (3.0, 3.0)


def test_without_a_budget_nothing_is_late(tmp_path):
    clock = Clock(None, tmp_path / "budget.json", 0.0)
    assert clock.left() == math.inf
    deadline = Deadline(clock, SEARCH_ENDS, "evaluated")
    assert not deadline.passed()
    assert not deadline.over()
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
    assert deadline.left() == pytest.approx(100 * SEARCH_ENDS - 10)
    now[0] = 990.01 + 100 * SEARCH_ENDS
    assert deadline.passed()
    assert not deadline.over()
    now[0] += 100 * GRACE
    assert deadline.over()
    assert deadline.ended is None
    now[0] -= 100 * GRACE
    deadline.end(4)
    assert deadline.over()
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


def test_what_is_reserved_at_the_end_is_taken_from_the_parts_before(tmp_path):
    clock = Clock(100.0, tmp_path / "budget.json", time.monotonic())
    assert clock.left(TRAINING_ENDS) == pytest.approx(100 * TRAINING_ENDS, abs=0.5)
    clock.reserve(30.0)
    assert clock.left(TRAINING_ENDS) == pytest.approx(70.0, abs=0.5)
    assert clock.left(SEARCH_ENDS) == pytest.approx(100 * SEARCH_ENDS, abs=0.5)
    assert clock.left() == pytest.approx(100.0, abs=0.5)


@pytest.fixture
def late_after(monkeypatch):
    """Ends the search's time once so many trainings are on record."""

    def end(run, number):
        def left(clock, share=1.0):
            path = run / "trainings.jsonl"
            known = path.read_bytes().count(b"\n") if path.exists() else 0
            late = share == SEARCH_ENDS and known >= number
            return -1e6 if late else 1e6

        monkeypatch.setattr(Clock, "left", left)

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
    with pytest.raises(UsageError, match=r"budget\.json is (damaged|not JSON)"):
        Clock(60.0, path, 0.0)


def test_without_a_last_training_the_others_have_its_time(tmp_path):
    now = time.monotonic()
    with_it, without = (Clock(100.0, tmp_path / name, now) for name in ("a", "b"))
    without.decide(NO_LAST, True)
    assert with_it.ends(SEARCH_ENDS) == pytest.approx(100 * SEARCH_ENDS)
    assert without.ends(PHASES_END) == pytest.approx(100 * TRAINING_ENDS)
    ratio = without.ends(SEARCH_ENDS) / with_it.ends(SEARCH_ENDS)
    assert ratio == pytest.approx(TRAINING_ENDS / PHASES_END)
    assert without.ends(TRAINING_ENDS) == with_it.ends(TRAINING_ENDS)
    assert without.ends(1.0) == with_it.ends(1.0) == 100
    assert without.left(SEARCH_ENDS) == pytest.approx(without.ends(SEARCH_ENDS), abs=1)
    assert Clock(None, tmp_path / "c", now).ends(SEARCH_ENDS) == math.inf


def test_later_phases_are_planned_again_for_the_time_that_is_left(tmp_path):
    settings = TrainSettings(window=12, batch=4, learning_rate=1e-3, decay_share=0.2)
    config = RunConfig(space="full", phases="400,1600").resolve("cpu")
    rungs = rungs_of(config.named_phases(), settings)
    spent = time.monotonic() - 1000 * SEARCH_ENDS
    clock = Clock(1000.0, tmp_path / "budget.json", spent)
    trainer = types.SimpleNamespace(
        rungs=rungs,
        task=types.SimpleNamespace(settings=settings),
        phases=[None, None],
        predicted_seconds=lambda configs, phase: rungs[1].new_steps * a_step,
    )
    a_step = 1.0  # of all that are promoted
    settled = with_later_phases(config, clock, trainer, [])
    assert settled == config  # the phases were given
    clock.decide("open", ["phases", "final_steps"])
    found = with_later_phases(config, clock, trainer, [])
    first, later = found.named_phases().values()
    assert first.samples == 400
    # 0.9 of their share of the budget, after the 80 steps that go on.
    seconds = 0.9 * 1000 * (PHASES_END - SEARCH_ENDS)
    assert steps_of(later, settings) == pytest.approx(80 + seconds, abs=2)
    again = Clock(1000.0, tmp_path / "budget.json", time.monotonic())
    assert with_later_phases(config, again, trainer, []) == found
    slow = Clock(1000.0, tmp_path / "other.json", spent)
    slow.decide("open", ["phases", "final_steps"])
    a_step = 30.0
    assert with_later_phases(config, slow, trainer, []).phases == config.phases


def test_settings_that_the_clock_decided_are_open_for_another_run(
    tmp_path, monkeypatch
):
    slow_by(1.0, monkeypatch)
    clock = Clock(1200.0, tmp_path / "budget.json", time.monotonic())
    planned, _ = planned_with(clock, Pace(), batch=4, population=7)
    file = tmp_path / "config.toml"
    file.write_text(planned.to_toml(planned_by(clock)))
    again = make_config(read_toml(file), "the run's own")
    assert again.resolve("cpu") == planned
    new = make_config(read_toml(file, anew=True), "another's")
    for name in ("phases", "samples", "epochs", "generations", "final_steps"):
        assert getattr(new, name) is None, name
    assert (new.budget, new.batch, new.population) == ("20m", 4, 7)
    for wrong in ("planned = 3", 'planned = ["no setting"]'):
        file.write_text(wrong)
        with pytest.raises(UsageError, match="planned must be a list of settings"):
            read_toml(file)


def test_a_run_says_that_its_machine_is_slow_or_busy(tmp_path):
    config = RunConfig(space="nano", budget="20m").resolve("cpu")
    for factor, lines in ((1.2, 1), (2.25, 2)):
        clock = Clock(1200.0, tmp_path / f"{factor}.json", time.monotonic())
        clock.decide("pace", [3.0, factor])
        said = words(config, clock).splitlines()
        assert len(said) == lines
        assert ("steps take 2.2 times as long here" in said[-1]) is (lines == 2)
