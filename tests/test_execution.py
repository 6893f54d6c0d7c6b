"""Plans as they run: what each candidate comes to is what it would alone."""

import dataclasses
import queue
import threading

import chex
import jax
import numpy as np
import pytest
from tasks import TINY, executed, noise_task, plan_of

from arch.padding import common_shape
from jaxnas.population.call import Work
from jaxnas.population.compile_stats import compile_counts
from jaxnas.population.compiler import Compiler
from jaxnas.population.executor import _outcomes, execute
from jaxnas.population.lanes import Running
from jaxnas.population.pool import Steps, call_ended, smaller_calls
from jaxnas.population.program import Program
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import batch_starts
from jaxnas.training.scoring import Compression, score
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import TrainingFailed, train

CONFIGS = (
    TINY,
    dataclasses.replace(TINY, num_layers=2, normalization="layernorm"),
    dataclasses.replace(TINY, hidden_dim=16, position_encoding="alibi"),
    dataclasses.replace(TINY, activation="swiglu", position_encoding="absolute"),
    dataclasses.replace(TINY, arch_type="mamba", hidden_dim=16),
)
# A small rate: where a gradient is all rounding, AdamW's step is a coin's toss.
SETTINGS = TrainSettings(window=12, batch=4, learning_rate=3e-4, steps_per_call=3)
PHASE = PhaseLength(samples=32, epochs=1)  # 8 steps, 3 calls
CALLS = 3
PAIR = (Compression("fp16", 0.0), Compression("int4", 0.5))

SHAPE = common_shape(CONFIGS[:4])
FOUR = Program(shape=SHAPE, form="looped", lanes=4, vmapped=True)
ALONE = Program(shape=CONFIGS[4])


def task():
    return noise_task(SETTINGS, kinds=40)


def work_of(configs=CONFIGS):
    return Work(
        task=task(),
        starts=batch_starts(0, 600, SETTINGS, PHASE),
        windows=task().windows("validation", 9),
        # Not all ask for the same.
        wanted={place: PAIR[: 1 + place % 2] for place in range(len(configs))},
    )


MIXED = plan_of((FOUR, (0, 1, 2, 3)), (ALONE, (4,)))


@pytest.fixture(scope="module")
def compiler():
    """One for all tests: each program is compiled once."""
    # The checker takes a key that `vmap` carries through a scan for a used one
    # (as in test_members). It is set for all threads: workers compile.
    jax.config.update("jax_debug_key_reuse", False)
    yield Compiler(task(), 9, None)
    jax.config.update("jax_debug_key_reuse", True)


def outcomes_of(plan, compiler, configs=CONFIGS, **options):
    """Outcomes by place; each candidate has one."""
    options = {"devices": jax.local_devices()[:1], "workers": 2} | options
    every = executed(plan, configs, work_of(), compiler, **options)
    assert len({one.key for one in every}) == len(every)
    return {one.key: one for one in every}


@pytest.fixture(scope="module")
def mixed(compiler):
    """Outcomes of the mixed plan, and what was reported meanwhile."""
    told, said = [], []
    found = outcomes_of(
        MIXED,
        compiler,
        report=lambda *now: told.append(now),
        on_split=said.append,
    )
    return found, told, said


def assert_alike(found, wanted):
    assert found.error is None
    chex.assert_trees_all_close(found.params, wanted.params, rtol=0, atol=1e-5)
    assert list(found.metrics) == list(wanted.metrics)
    for name, metrics in found.metrics.items():
        assert metrics.loss == pytest.approx(wanted.metrics[name].loss, rel=1e-5)


def workers_alive():
    return [one.name for one in threading.enumerate() if "train" in one.name]


@pytest.mark.parametrize("place", range(5))
@pytest.mark.sweep(5)
def test_each_is_trained_and_scored_as_if_alone(mixed, place):
    found = mixed[0][place]
    config, windows = CONFIGS[place], work_of().windows
    params, _ = train(config, task(), PHASE)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.params, params)
    chex.assert_trees_all_close(found.params, params, rtol=0, atol=1e-5)
    assert list(found.metrics) == list(PAIR[: 1 + place % 2])
    # Of the outcome's own weights: int4 magnifies what training's last digits are.
    wanted = score(config, task(), found.params, windows, PAIR)
    for compression, metrics in found.metrics.items():
        alone = wanted[PAIR.index(compression)]
        assert metrics.loss == pytest.approx(alone.loss, abs=1e-5)
        assert metrics.bits_per_byte == pytest.approx(alone.bits_per_byte, abs=1e-5)
        assert metrics.accuracy == pytest.approx(alone.accuracy, abs=1e-5)
    assert found.program == (FOUR if place < 4 else ALONE)
    assert found.error is None
    assert found.seconds > 0


def test_steps_are_reported_over_all_calls(mixed):
    found, told, said = mixed
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert len(told) == 2 * CALLS
    done = [now[0] for now in told]
    assert done == sorted(done)
    assert told[-1][:2] == (16, 16)
    assert {now[1] for now in told} == {16}
    assert all(np.isfinite(now[2]) for now in told)
    assert said == []
    assert workers_alive() == []


def test_what_is_done_already_is_left_out(mixed, compiler):
    configs = [None, CONFIGS[1], None, CONFIGS[3], None]
    before = compile_counts()
    found = outcomes_of(MIXED, compiler, configs)
    assert sorted(found) == [1, 3]
    for place in (1, 3):
        assert_alike(found[place], mixed[0][place])
    assert compile_counts().since(before).compiled == 0


def test_a_second_generation_of_the_same_shapes_compiles_nothing(mixed, compiler):
    programs, before = len(compiler), compile_counts()
    found = outcomes_of(MIXED, compiler)
    assert compile_counts().since(before) == (0, 0)
    for place, outcome in found.items():  # and is the same to the bit
        chex.assert_trees_all_equal(outcome.params, mixed[0][place].params)
        assert outcome.metrics == mixed[0][place].metrics
    others = [
        dataclasses.replace(TINY, normalization="groupnorm", activation="geglu"),
        dataclasses.replace(TINY, hidden_dim=16, ffn_dim=40),
        dataclasses.replace(TINY, num_layers=2, activation="silu"),
    ]
    found = outcomes_of(plan_of((FOUR, (0, 1, 2))), compiler, others)
    assert [found[at].error for at in range(3)] == [None] * 3
    assert len(compiler) == programs


def test_what_is_prepared_is_compiled(mixed, compiler):
    program = dataclasses.replace(ALONE, shape=CONFIGS[0])
    plan = dataclasses.replace(MIXED, prepared=(program,))
    outcomes_of(plan, compiler, [None] * 5)
    ready = compiler.ask(program, jax.local_devices()[0])
    assert ready.done()
    assert callable(ready.result().train)


def test_a_lane_that_diverges_fails_alone(mixed, compiler, monkeypatch):
    advance = Running.advance

    def poisoned(self, *arguments):
        losses = advance(self, *arguments).copy()
        if len(losses) == 4 and self.step == 6:
            losses[2, 1:] = np.nan  # steps 4 and 5
        return losses

    monkeypatch.setattr(Running, "advance", poisoned)
    found = outcomes_of(MIXED, compiler)
    assert found[2].params is None
    assert found[2].metrics == {}
    assert isinstance(found[2].error, TrainingFailed)
    assert str(found[2].error) == "the training loss is nan at step 4"
    assert found[2].trace.strip().endswith("the training loss is nan at step 4")
    for place in (0, 1, 3, 4):
        assert_alike(found[place], mixed[0][place])


def test_when_all_diverge_none_goes_on(compiler, monkeypatch):
    steps, advance = [], Running.advance

    def poisoned(self, *arguments):
        steps.append(self.step)
        return advance(self, *arguments) * np.nan

    monkeypatch.setattr(Running, "advance", poisoned)
    found = outcomes_of(MIXED, compiler)
    assert steps == [0, 0]
    for outcome in found.values():
        assert str(outcome.error) == "the training loss is nan at step 0"
        assert (outcome.params, outcome.metrics) == (None, {})


def test_lanes_that_diverge_one_after_the_other_keep_their_own_reasons(
    compiler, monkeypatch
):
    advance = Running.advance

    def poisoned(self, *arguments):
        losses = advance(self, *arguments).copy()
        # The last lane in the first call, the others in the second.
        losses[-1 if self.step <= SETTINGS.steps_per_call else 0 :] = np.nan
        return losses

    monkeypatch.setattr(Running, "advance", poisoned)
    found = outcomes_of(plan_of((FOUR, (0, 1, 2, 3))), compiler)
    steps = [str(found[at].error).split()[-1] for at in range(4)]
    assert steps == ["3", "3", "3", "0"]


def test_who_is_left_keeps_the_lane(mixed, compiler):
    left = [None, CONFIGS[1], None, CONFIGS[3], None]
    found = outcomes_of(MIXED, compiler, configs=left)
    assert sorted(found) == [1, 3]
    for place, outcome in found.items():
        chex.assert_trees_all_equal(outcome.params, mixed[0][place].params)
        assert outcome.metrics == mixed[0][place].metrics


def test_a_bucket_over_the_memory_limit_is_split_once(mixed, compiler):
    device = jax.local_devices()[0]
    needed = compiler.ask(FOUR, device).result().memory
    said = []
    found = outcomes_of(MIXED, compiler, memory=needed - 1, on_split=said.append)
    assert len(said) == 1
    [(program, smaller, reason, _)] = said
    assert (program.lanes, smaller.lanes) == (4, 2)
    assert "MiB of the device" in reason
    assert "\n" not in reason
    for place in range(5):
        assert_alike(found[place], mixed[0][place])
        assert found[place].program.lanes == (2 if place < 4 else 1)
    assert compiler.ask(found[0].program, device).result().memory < needed


def test_who_cannot_fit_at_all_fails_with_one_line(mixed, compiler):
    found = outcomes_of(plan_of((ALONE, (4,))), compiler, memory=1000.0)
    [outcome] = found.values()
    assert isinstance(outcome.error, MemoryError)
    assert "MiB of the device" in str(outcome.error)
    assert len(str(outcome.error).splitlines()) == 1
    assert (outcome.params, outcome.metrics) == (None, {})
    assert "Traceback" in outcome.trace


def test_a_device_that_runs_out_of_memory_gets_half(mixed, compiler, monkeypatch):
    advance, raised = Running.advance, []

    def full(self, *arguments):
        if len(self.group.configs) == 4 and not raised:
            raised.append(self.step)
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nand so on"
            )
        return advance(self, *arguments)

    monkeypatch.setattr(Running, "advance", full)
    said = []
    found = outcomes_of(MIXED, compiler, on_split=said.append)
    assert raised == [0]
    [(program, smaller, reason, _)] = said
    assert (program.lanes, smaller.lanes) == (4, 2)
    assert reason == "out of memory"
    for place in range(5):
        assert_alike(found[place], mixed[0][place])
        assert found[place].program.lanes == (2 if place < 4 else 1)


def test_another_error_is_the_reason_of_all_its_members(mixed, compiler, monkeypatch):
    advance = Running.advance

    def broken(self, *arguments):
        if len(self.group.configs) == 4:
            raise jax.errors.JaxRuntimeError("INTERNAL: what?")
        return advance(self, *arguments)

    monkeypatch.setattr(Running, "advance", broken)
    said = []
    found = outcomes_of(MIXED, compiler, on_split=said.append)
    assert said == []
    assert [str(found[at].error) for at in range(4)] == ["INTERNAL: what?"] * 4
    assert_alike(found[4], mixed[0][4])


@pytest.mark.parametrize("workers", [1, 2])
def test_taking_no_more_stops_the_workers(mixed, compiler, monkeypatch, workers):
    steps, advance = [], Running.advance

    def counted(self, *arguments):
        steps.append(self.step)
        return advance(self, *arguments)

    monkeypatch.setattr(Running, "advance", counted)
    plan = plan_of(*[(ALONE, (at,)) for at in range(12)])
    found = []

    def take(outcome):
        found.append(outcome)
        assert len(workers_alive()) == workers
        return False

    execute(
        plan,
        dict.fromkeys(range(12), CONFIGS[4]),
        work_of(),
        compiler,
        take,
        devices=jax.local_devices()[:1],
        workers=workers,
    )
    assert workers_alive() == []
    assert [one.error for one in found] == [None] * len(found)
    assert 1 <= len(found) <= workers  # those that had ended by then
    assert len(steps) < 12 * CALLS


def test_what_has_ended_counts_though_nothing_more_is_taken():
    events: queue.SimpleQueue = queue.SimpleQueue()
    for outcomes in (["a", "b"], ["c"]):
        events.put(Steps(20, 1.0))
        events.put(call_ended(outcomes))
    events.put(Steps(20, 1.0))  # of a third, which still trains
    taken: list[str] = []
    told = (lambda *_: None, lambda split: None)
    for outcome in _outcomes(events, 3, 20, *told, lambda: bool(taken)):
        taken.append(outcome)
    assert taken == ["a", "b", "c"]


def test_a_call_that_is_done_in_part_is_split_as_the_whole_was():
    """A resume runs the programs that the killed process ran."""
    keys = tuple("abcdefgh")
    eight = Program(shape=TINY, form="looped", lanes=8)
    known = dict.fromkeys(keys, TINY)
    smaller, parts = smaller_calls(eight, keys, known)
    assert (smaller.lanes, parts) == (4, [keys[:4], keys[4:]])
    left = (None,) * 4 + keys[4:]
    assert smaller_calls(eight, left, known) == (smaller, [keys[4:]])
    left = (None, None, "c", None, *keys[4:])
    assert smaller_calls(eight, left, known) == (smaller, [left[:4], keys[4:]])
    # Of three members in four lanes none is left out.
    four = dataclasses.replace(eight, lanes=4)
    smaller, parts = smaller_calls(four, keys[:3], known)
    assert (smaller.lanes, parts) == (2, [keys[:2], keys[2:3]])
