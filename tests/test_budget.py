"""A budget of time: what is planned for it, and what the clock decides."""

import json
import math

import pytest

from jaxnas.budget import (
    PHASES_END,
    SEARCH_ENDS,
    TRIED,
    Clock,
    outline,
    seconds_of,
)
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.timed import phase_is_late, search_is_late


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

    def foreseen(steps):
        return compiling + step * steps

    found = outline(foreseen, presets, lambda share: share * budget, 10_000)
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
    more = outline(foreseen, presets, lambda share: 4 * share * budget, 10_000)
    assert more.phases[0] >= first
    assert more.phases[-1] >= found.phases[-1]


def test_a_small_space_has_no_larger_population():
    found = outline(lambda steps: 1e-3 * steps, (100,), lambda share: 1e4 * share, 8)
    assert found.population == 8


def test_without_a_budget_nothing_is_late(tmp_path):
    clock = Clock(None, tmp_path / "budget.json", 0.0)
    assert clock.left() == math.inf
    assert not search_is_late(clock)(10**6)
    assert clock.decide("population", 3) == 3
    clock.save()
    assert list(tmp_path.iterdir()) == []


def test_what_the_clock_decided_holds_after_a_resume(tmp_path, monkeypatch):
    path, now = tmp_path / "budget.json", [1000.0]
    monkeypatch.setattr("jaxnas.budget.time.monotonic", lambda: now[0])
    clock = Clock(100.0, path, 990.0)
    late = search_is_late(clock)
    assert (clock.spent(), clock.left()) == (10.0, 90.0)
    assert not late(3)
    now[0] = 990.01 + 100 * SEARCH_ENDS
    assert late(4)
    now[0] = 5000.0  # a day later, in another process
    again = Clock(100.0, path, 5000.0)
    assert again.spent() == pytest.approx(100 * SEARCH_ENDS, abs=0.1)
    late = search_is_late(again)
    assert [late(number) for number in (3, 4, 5)] == [False, True, True]
    assert not phase_is_late(again)("medium", 1)
    now[0] = 5000.0 + 100
    assert phase_is_late(again)("medium", 2)
    assert json.loads(path.read_text())["decided"]["phase medium"] == 2
    assert again.decide("evaluated", 9) == 4


@pytest.mark.parametrize(
    "text", ["", "[]", '{"spent": 3}', '{"spent": "x", "decided": {}}']
)
def test_damaged_decisions_are_one_line(tmp_path, text):
    path = tmp_path / "budget.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"budget\.json is damaged"):
        Clock(60.0, path, 0.0)
