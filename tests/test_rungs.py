"""Phases are rungs of one training; what goes on, and what is not worth it."""

import dataclasses
import itertools
import math

import chex
import jax
import numpy as np
import pytest
from tasks import TINY, TOKENS, executed, noise_task, plan_of

import jaxnas
from arch.cost import kept_channels
from arch.padding import common_shape
from jaxnas.errors import UsageError
from jaxnas.population.call import Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.program import Program
from jaxnas.population.train_states import States
from jaxnas.training.curves import extrapolated, points_of
from jaxnas.training.keys import stage_of
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.rungs import rung_starts, rungs_of
from jaxnas.training.scoring import Compression
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import continue_training, starting_state
from jaxnas.training.stopping import diverged, is_flat

SETTINGS = TrainSettings(
    window=12, batch=4, learning_rate=3e-4, decay_share=0.25, steps_per_call=3
)
PHASES = {
    "fast": PhaseLength(samples=32, epochs=1),  # 8 steps
    "medium": PhaseLength(samples=40, epochs=2),  # 20 steps
    "full": PhaseLength(samples=176, epochs=1),  # 44 steps
}
RUNGS = rungs_of(PHASES, SETTINGS)
CONFIGS = (
    TINY,
    dataclasses.replace(TINY, num_layers=2, normalization="layernorm"),
    dataclasses.replace(TINY, hidden_dim=16, position_encoding="alibi"),
)
SHAPE = common_shape(CONFIGS)


def test_each_rung_goes_on_where_the_one_before_was_stable():
    found = [(rung.begin, rung.keep, rung.steps) for rung in RUNGS]
    assert found == [(0, 6, 8), (6, 15, 20), (15, None, 44)]
    for rung in RUNGS:
        rates = jax.vmap(rung.schedule(SETTINGS).rate)(np.arange(rung.steps))
        stable = rates[: rung.stable_until(SETTINGS)]
        # All rungs warm up alike and are at the peak until they decay.
        assert stable[0] == pytest.approx(SETTINGS.learning_rate)
        chex.assert_trees_all_close(stable, np.full(len(stable), 3e-4, np.float32))
        assert (np.diff(rates[len(stable) :]) < 0).all()


def test_the_windows_of_a_phase_follow_those_of_the_one_before():
    starts = [
        rung_starts(0, TOKENS, SETTINGS, RUNGS[: number + 1]) for number in range(3)
    ]
    assert [len(rows) for rows in starts] == [rung.steps for rung in RUNGS]
    for shorter, longer in itertools.pairwise(starts):
        np.testing.assert_array_equal(shorter, longer[: len(shorter)])


@pytest.mark.parametrize(
    ("phases", "share", "word"),
    [
        (
            {
                "a": PhaseLength(samples=32, epochs=1),
                "b": PhaseLength(samples=32, epochs=1),
            },
            0.2,
            "b",
        ),
        (
            {
                "a": PhaseLength(samples=32, epochs=1),
                "b": PhaseLength(samples=64, epochs=1),
            },
            1,
            "1",
        ),
        (
            {
                "a": PhaseLength(samples=400, epochs=1),
                "b": PhaseLength(samples=404, epochs=1),
                "c": PhaseLength(samples=1600, epochs=1),
            },
            0.2,
            "phase b adds no step",
        ),
    ],
)
def test_phases_that_do_not_follow_each_other_are_refused(phases, share, word):
    settings = dataclasses.replace(SETTINGS, decay_share=share)
    with pytest.raises(ValueError, match=word):
        rungs_of(phases, settings)


TOGETHER = plan_of((Program(shape=SHAPE, form="unrolled"), (0, 1, 2)))
AT_ONCE = plan_of(
    (Program(shape=SHAPE, form="unrolled", lanes=4, vmapped=True), (0, 1, 2))
)
ALONE = plan_of(*((Program(shape=one), (at,)) for at, one in enumerate(CONFIGS)))


@pytest.fixture(scope="module")
def task():
    return noise_task(SETTINGS, kinds=40)


@pytest.fixture(scope="module")
def compiler(task):
    # Under `vmap` the checker counts the layers' keys as one.
    jax.config.update("jax_debug_key_reuse", False)
    ready = Compiler(task, windows=9, lone=None)
    yield ready
    ready.close()
    jax.config.update("jax_debug_key_reuse", True)


def run(plan, task, compiler, rung, states, wanted=(), **changes):
    work = Work(
        task=task,
        starts=rung_starts(task.seed, TOKENS, task.settings, RUNGS[: rung + 1]),
        windows=task.windows("validation", 9),
        wanted=dict.fromkeys(range(len(CONFIGS)), wanted),
        schedule=RUNGS[rung].schedule(task.settings),
        begin=RUNGS[rung].begin,
        begun=states.get,
        keep=RUNGS[rung].keep,
    )
    work = dataclasses.replace(work, **changes)
    devices = jax.local_devices()[:1]
    every = executed(plan, CONFIGS, work, compiler, devices=devices)
    assert [one.error for one in every] == [None] * len(CONFIGS), every[0].trace
    return {one.key: one for one in sorted(every, key=lambda one: one.key)}


@pytest.fixture(scope="module")
def climbed(task, compiler):
    """Three phases, in another program each."""
    found, states = [], {}
    for rung, plan in enumerate((TOGETHER, ALONE, AT_ONCE)):
        outcomes = run(plan, task, compiler, rung, states)
        states = {place: one.state for place, one in outcomes.items()}
        found.append(outcomes)
    return found


def uninterrupted(task, config, rung):
    starts = rung_starts(task.seed, TOKENS, SETTINGS, RUNGS[: rung + 1])
    schedule = RUNGS[rung].schedule(SETTINGS)
    begun = starting_state(config, task)
    *_, (state, losses) = continue_training(
        config, task, begun, starts, "dropout", schedule
    )
    return state, losses[-1]


@pytest.mark.slow
def test_a_survivors_training_is_one_training(task, climbed):
    for rung, (place, config) in itertools.product(range(3), enumerate(CONFIGS)):
        state, loss = uninterrupted(task, config, rung)
        found = climbed[rung][place]
        assert found.loss == pytest.approx(loss, abs=1e-5)
        chex.assert_trees_all_close(found.params, state.params, atol=1e-5)
        kept = found.state
        assert (kept is None) == (rung == 2)
        if kept is not None:
            assert int(kept.step) == RUNGS[rung].keep
    # The stable weights are not those that were scored.
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(
            climbed[0][0].state.params, climbed[0][0].params, atol=1e-5
        )


def test_in_one_program_a_survivor_is_the_same_to_the_bit(task, compiler):
    states = {}
    for rung in range(3):
        outcomes = run(ALONE, task, compiler, rung, states)
        states = {place: one.state for place, one in outcomes.items()}
    whole = run(ALONE, task, compiler, 2, {}, begin=0)
    for place in range(len(CONFIGS)):
        chex.assert_trees_all_equal(outcomes[place].params, whole[place].params)


def test_a_stored_state_is_read_back_or_refused(task, climbed, tmp_path):
    states = States(tmp_path / "states")
    for place in (0, 1):
        states.save(f"key{place}", climbed[1][place].state)
        found = states.load(f"key{place}", CONFIGS[place], SETTINGS)
        chex.assert_trees_all_equal(found, climbed[1][place].state)
    states.save("key0", climbed[0][0].state)  # again, in place of the old one
    assert int(states.load("key0", CONFIGS[0], SETTINGS).step) == RUNGS[0].keep
    states.keep({"key1"}, {stage_of("key1")})
    assert ("key0" in states, "key1" in states) == (False, True)
    for path in (tmp_path / "states" / "key1").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match=r"key1 is damaged.*trained again"):
        states.load("key1", CONFIGS[1], SETTINGS)


def test_a_pruned_model_recovers_and_stays_pruned(task, compiler):
    plain, half = Compression("fp16", 0.0), Compression("fp16", 0.5)
    fast = dataclasses.replace(SETTINGS, learning_rate=1e-3)
    learning = dataclasses.replace(task, settings=fast)
    rows = rung_starts(1, TOKENS, fast, RUNGS[:1])[:5]
    ready = Compiler(learning, windows=9, lone=None)
    outcomes = [
        run(ALONE, learning, ready, 0, {}, (plain, half), recovery=recovery)
        for recovery in (None, rows)
    ]
    ready.close()
    assert kept_channels(TINY.inner_channels, 0.5) < TINY.inner_channels
    every = zip(CONFIGS, *(one.values() for one in outcomes), strict=True)
    for config, before, after in every:
        # What is not pruned is not touched.
        assert after.metrics[plain] == before.metrics[plain]
        chex.assert_trees_all_equal(after.params, before.params)
        if config is TINY:
            assert after.metrics[half].loss < before.metrics[half].loss
        up = after.weights_for(0.5)["blocks"]["feedforward"]["up"]["kernel"]
        gone = (np.abs(up).sum(axis=1) == 0).sum()
        inner = config.inner_channels
        assert gone == config.num_layers * (inner - kept_channels(inner, 0.5))
        assert before.weights_for(0.5) is before.params


def test_a_flat_training_ends_early(task, compiler):
    """A loss must fall by half, which it does not: the decay comes at once."""
    [early, *_] = run(ALONE, task, compiler, 2, {}, begin=0, flat=0.5).values()
    stable = RUNGS[2].stable_until(SETTINGS)
    assert stable / 2 <= early.stopped < stable
    assert int(early.state.step) == early.stopped
    decay = math.ceil(RUNGS[2].schedule(SETTINGS).decay)
    shorter = dataclasses.replace(RUNGS[2], steps=early.stopped + decay)
    schedule = RUNGS[2].schedule(SETTINGS)._replace(total=float(shorter.steps))
    starts = rung_starts(task.seed, TOKENS, SETTINGS, RUNGS)[: shorter.steps]
    [same, *_] = run(
        ALONE, task, compiler, 2, {}, begin=0, starts=starts, schedule=schedule
    ).values()
    chex.assert_trees_all_close(early.params, same.params, atol=1e-6)


def test_what_counts_as_flat_and_as_diverged():
    falling = np.linspace(4, 3, 100, dtype=np.float32)
    assert not is_flat(falling, 0.001)
    assert is_flat(np.full(100, 3.0, np.float32), 0.001)
    assert is_flat(falling[::-1], 0.001)
    assert not is_flat(falling[:1], 0.001)
    assert diverged(falling, 0, 1024, True) is None
    assert "nan at step 12" in diverged(np.asarray([3, 3, np.nan]), 10, 1024, False)
    high = np.full(5, math.log(1024) + 1.1)
    assert diverged(high, 0, 1024, False) is None  # the warm-up may overshoot
    assert "diverged" in diverged(high, 0, 1024, True)


def test_a_learning_curve_is_drawn_on():
    steps = np.arange(200)
    losses = 2.0 + 3.0 * (steps + 1.0) ** -0.4
    curve = points_of(losses[20:], 20)
    assert len(curve) == 8
    assert [step for step, _ in curve] == sorted(step for step, _ in curve)
    assert extrapolated(curve, 2000) == pytest.approx(2 + 3 * 2001**-0.4, abs=0.01)
    rising = [(step, -loss) for step, loss in curve]  # no floor below zero
    assert extrapolated(rising, 2000) == 0
    with pytest.raises(ValueError, match="2 points"):
        extrapolated(curve[:1], 100)


def test_one_architecture_is_trained_for_one_phase():
    with pytest.raises(UsageError, match="one phase"):
        jaxnas.evaluate(TINY, phase="fast,medium")


@pytest.mark.parametrize("plan", [TOGETHER, AT_ONCE], ids=["in turn", "at once"])
def test_a_member_ends_where_it_would_alone(task, compiler, monkeypatch, plan):
    """Whether it is flat is its own matter, and so is what it ends with."""
    begins: list[float] = []

    def told(curve, least):
        begins.append(float(curve[0]))
        return False

    monkeypatch.setattr("jaxnas.population.call.is_flat", told)
    run(ALONE, task, compiler, 2, {}, begin=0, flat=0.5)
    lowest, second, *_ = sorted(set(begins))
    monkeypatch.setattr(  # one of them counts as flat
        "jaxnas.population.call.is_flat",
        lambda curve, least: curve[0] < (lowest + second) / 2,
    )
    alone, beside = (
        run(one, task, compiler, 2, {}, begin=0, flat=0.5) for one in (ALONE, plan)
    )
    assert [one.stopped is None for one in alone.values()].count(False) == 1
    for one, other in zip(alone.values(), beside.values(), strict=True):
        assert one.stopped == other.stopped
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert len(one.curve) == len(other.curve)
        chex.assert_trees_all_close(one.params, other.params, atol=1e-5)
        assert (one.state is None) == (other.state is None)
        if one.state is not None:
            assert one.state.step == other.state.step == one.stopped
            chex.assert_trees_all_close(one.state, other.state, atol=1e-5)
