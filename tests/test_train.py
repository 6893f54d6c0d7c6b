import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import monitoring

from arch import ArchitectureConfig, build_model
from arch.initial import draw_parameters
from jaxnas.data import Dataset, token_bytes, train_tokenizer
from jaxnas.training.lengths import PHASES, SMALL_PHASES, PhaseLength
from jaxnas.training.loop import Schedule, batch_starts, gather_windows, make_trainer
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import (
    TrainingFailed,
    continue_training,
    starting_state,
    train,
)
from jaxnas.training.task import Task

VOCAB, PERIOD = 24, 17
CONFIG = ArchitectureConfig(
    arch_type="transformer",
    num_layers=1,
    hidden_dim=32,
    num_heads=2,
    ffn_multiplier=2.0,
    normalization="rmsnorm",
    activation="silu",
    position_encoding="rope",
    vocab_size=VOCAB,
    attention_dropout=0.1,
    residual_dropout=0.1,
)
CALM = dataclasses.replace(CONFIG, attention_dropout=0.0, residual_dropout=0.0)
# Tests keep to the same few sizes of a call: each is another program to compile.
CALL = 20
SETTINGS = TrainSettings(window=12, batch=4, learning_rate=2e-3, steps_per_call=CALL)
STEPS = 43  # a multiple of no call's size


def stream(length):
    """Tokens that repeat with a period: each is known from the one before."""
    rng = np.random.default_rng(0)
    return np.resize(rng.permutation(VOCAB)[:PERIOD], length).astype(np.uint16)


def task_of(settings=SETTINGS, seed=0):
    tokenizer = train_tokenizer(["ab"], 257)
    dataset = Dataset(
        spec="periodic",
        corpus_hash="",
        train=stream(500),
        validation=stream(300),
        test=stream(300),
        token_bytes=token_bytes(tokenizer),
        tokenizer=tokenizer,
        vocab_size=257,
        statistics={},
    )
    return Task(dataset=dataset, settings=settings, seed=seed, dtype=jnp.float32)


@pytest.fixture
def compiled():
    """Names of the functions that were traced, and that were compiled."""
    traced, built = [], []

    def listen(event, _, fun_name="", **__):
        if event.endswith("jaxpr_trace_duration"):
            traced.append(fun_name)
        if event.endswith("backend_compile_duration"):
            built.append(fun_name)

    monitoring.register_event_duration_secs_listener(listen)
    yield traced, built
    monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("samples", [8, 12, 100])
@pytest.mark.parametrize("epochs", [1, 3])
def test_every_sample_is_seen_once_an_epoch(samples, epochs):
    phase = PhaseLength(samples=samples, epochs=epochs)
    starts = batch_starts(3, 500, SETTINGS, phase)
    assert starts.shape == (samples * epochs // 4, 4)
    assert starts.dtype == np.int32
    each = starts.reshape(epochs, samples)
    for epoch in each[1:]:
        np.testing.assert_array_equal(np.sort(epoch), np.sort(each[0]))
        assert not np.array_equal(epoch, each[0])
    assert np.unique(each[0]).size > samples / 2  # drawn, not one over and over


def test_what_is_left_of_the_last_batch_is_dropped():
    whole = batch_starts(0, 500, SETTINGS, PhaseLength(samples=13, epochs=3))
    assert whole.shape == (9, 4)  # of 39 samples
    seen, counts = np.unique(whole, return_counts=True)
    assert seen.size <= 13
    assert counts.sum() == 36
    assert batch_starts(0, 500, SETTINGS, PhaseLength(samples=2, epochs=1)).shape == (
        1,
        4,
    )


@pytest.mark.parametrize("tokens", [13, 14, 20, 500])
def test_windows_lie_in_the_split_and_reach_its_ends(tokens):
    starts = batch_starts(1, tokens, SETTINGS, PhaseLength(samples=4000, epochs=1))
    assert starts.min() == 0
    assert starts.max() == tokens - 13  # a window and the token after it


def test_starts_depend_on_the_seed_and_the_phase_alone():
    phase = PhaseLength(samples=64, epochs=2)
    first = batch_starts(5, 500, SETTINGS, phase)
    rate = dataclasses.replace(SETTINGS, learning_rate=1.0, steps_per_call=3)
    np.testing.assert_array_equal(batch_starts(5, 500, rate, phase), first)
    for other in (
        batch_starts(6, 500, SETTINGS, phase),
        batch_starts(5, 500, SETTINGS, PhaseLength(samples=68, epochs=2))[:32],
    ):
        assert not np.array_equal(other, first)


def test_windows_are_slices_with_the_next_token():
    tokens = stream(100)
    starts = np.array([0, 5, 87, 5], np.int32)
    found = gather_windows(jnp.asarray(tokens), jnp.asarray(starts), 12)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, [tokens[s : s + 13] for s in starts])


def rate_by_hand(step, steps, settings):
    """Linear up over the warm-up, flat, linear down to zero at the end."""
    up = (step + 1) / max(1, settings.warmup_share * steps)
    down = (steps - step) / max(1, settings.decay_share * steps)
    return settings.learning_rate * max(0.0, min(1.0, up, down))


@pytest.mark.parametrize("shares", [(0.1, 0.9), (0.2, 0.3), (0.0, 0.0), (0.7, 0.7)])
@pytest.mark.parametrize("steps", [1, 10, 200])
def test_schedule(shares, steps):
    warmup, decay = shares
    settings = dataclasses.replace(SETTINGS, warmup_share=warmup, decay_share=decay)
    schedule = Schedule.over(steps, settings)
    rates = np.asarray(jax.vmap(schedule.rate)(jnp.arange(steps + 5)))
    wanted = [rate_by_hand(step, steps, settings) for step in range(steps + 5)]
    np.testing.assert_allclose(rates, wanted, rtol=1e-5)
    assert np.all(rates[:steps] > 0)  # no step is lost
    assert np.all(rates[steps:] == 0)
    if warmup + decay <= 1:
        assert rates.max() == np.float32(settings.learning_rate)
    peak = np.argmax(rates)
    assert np.all(np.diff(rates[: peak + 1]) >= 0)
    assert np.all(np.diff(rates[peak:]) <= 0)
    assert rates[steps - 1] <= settings.learning_rate / max(1, decay * steps) * 1.0001


def test_schedule_warms_up_holds_and_decays():
    settings = dataclasses.replace(SETTINGS, warmup_share=0.1, decay_share=0.2)
    rates = jax.vmap(Schedule.over(100, settings).rate)(jnp.arange(100)) / 2e-3
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-5)
    np.testing.assert_allclose(rates[10:81], 1, rtol=1e-5)
    np.testing.assert_allclose(rates[80:], np.arange(20, 0, -1) / 20, rtol=1e-5)


def reference(params, tokens, starts, settings):
    """Step by step with optax.adamw: the loss by hand, windows by slicing.

    Hidden matrices move 64 / width as fast as the schedule says, all else four times.
    """
    model = build_model(CALM)
    steps = len(starts)
    is_matrix = jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ("kernel", "embedding"), params
    )
    factors = jax.tree_util.tree_map_with_path(
        lambda path, _: (
            64 / CALM.hidden_dim
            if path[-1].key == "kernel" and path[-2].key != "head"
            else 4.0
        ),
        params,
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(
            lambda count: jnp.asarray(
                [rate_by_hand(step, steps, settings) for step in range(steps)]
            )[count],
            b1=0.9,
            b2=settings.beta2,
            eps=1e-8,
            weight_decay=settings.weight_decay,
            mask=is_matrix,
        ),
    )

    def loss_of(params, windows):
        logits = model.apply({"params": params}, windows[:, :-1])
        chosen = jnp.take_along_axis(logits, windows[:, 1:, None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - chosen).mean()

    @jax.jit
    def step(params, moments, windows):
        loss, grads = jax.value_and_grad(loss_of)(params, windows)
        updates, moments = optimizer.update(grads, moments, params)
        updates = jax.tree.map(jnp.multiply, updates, factors)
        return optax.apply_updates(params, updates), moments, loss, grads

    moments, losses, norms = optimizer.init(params), [], []
    for row in starts:
        windows = np.stack([tokens[s : s + settings.window + 1] for s in row])
        params, moments, loss, grads = step(params, moments, windows.astype(np.int32))
        losses.append(float(loss))
        norms.append(float(optax.tree.norm(grads)))
    return params, losses, norms


def test_the_loop_is_adamw_with_clipping_decay_and_schedule():
    settings = dataclasses.replace(
        SETTINGS, weight_decay=1.0, clip_norm=0.7, warmup_share=0.2, decay_share=0.5
    )
    task = task_of(settings)
    starts = batch_starts(0, 500, settings, PhaseLength(samples=120, epochs=1))
    params = draw_parameters(build_model(CALM), task.key("parameters"))
    wanted, losses, norms = reference(params, stream(500), starts, settings)
    assert min(norms) < 0.7 < max(norms)  # some steps are clipped, some are not
    begun = starting_state(CALM, task)
    parts = list(continue_training(CALM, task, begun, starts, "dropout"))
    state, found = parts[-1][0], np.concatenate([part for _, part in parts])
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    chex.assert_trees_all_close(state.params, wanted, rtol=1e-3, atol=1e-5)
    assert int(state.step) == len(starts) == 30


def run_in_calls(size, starts, state=None):
    """The state before each call, the last state and all losses."""
    task = task_of(dataclasses.replace(SETTINGS, steps_per_call=size))
    begun = starting_state(CONFIG, task) if state is None else state
    before, losses = [jax.tree.map(np.array, begun)], []
    for after, part in continue_training(CONFIG, task, begun, starts, "dropout"):
        before.append(jax.tree.map(np.array, after))
        losses.append(part)
    return before, np.concatenate(losses)


@pytest.fixture(scope="module")
def in_sevens():
    starts = batch_starts(0, 500, SETTINGS, PhaseLength(samples=STEPS * 4, epochs=1))
    return (starts, *run_in_calls(7, starts))


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.sweep(2)
def test_the_size_of_a_call_does_not_change_a_bit(in_sevens, size):
    starts, states, losses = in_sevens
    others, other_losses = run_in_calls(size, starts)
    assert len(others) - 1 == math.ceil(STEPS / size)
    np.testing.assert_array_equal(other_losses, losses, strict=True)
    chex.assert_trees_all_equal(others[-1], states[-1])


def test_going_on_from_the_middle_is_the_same_to_the_bit(in_sevens):
    starts, states, losses = in_sevens
    assert [int(state.step) for state in states] == [*range(0, STEPS, 7), STEPS]
    again, rest = run_in_calls(7, starts, jax.tree.map(jnp.asarray, states[3]))
    np.testing.assert_array_equal(rest, losses[21:], strict=True)
    chex.assert_trees_all_equal(again[-1], states[-1])


def test_dropout_differs_by_step_and_by_key():
    trainer = make_trainer(build_model(CONFIG), SETTINGS)
    params = draw_parameters(build_model(CONFIG), jax.random.key(0))
    still = Schedule(peak=0.0, warmup=1.0, decay=1.0, total=9.0)
    starts = np.zeros((CALL, 4), np.int32)  # always the same windows
    tokens = jnp.asarray(stream(500))

    def losses(seed, stop=4):
        state, found = trainer.run(
            trainer.init(params), tokens, starts, still, jax.random.key(seed), stop
        )
        chex.assert_trees_all_equal(state.params, params)
        return found.tolist()

    first = losses(1)
    assert len(set(first[:4])) == 4
    assert not any(first[4:])
    assert losses(1) == first
    assert not set(losses(2)[:4]) & set(first)
    assert losses(1, stop=2) == [*first[:2], *[0] * (CALL - 2)]


def test_without_dropout_the_same_windows_give_the_same_loss():
    trainer = make_trainer(build_model(CALM), SETTINGS)
    params = draw_parameters(build_model(CALM), jax.random.key(0))
    still = Schedule(peak=0.0, warmup=1.0, decay=1.0, total=9.0)
    starts, tokens = np.zeros((CALL, 4), np.int32), jnp.asarray(stream(500))
    key = jax.random.key(1)
    _, found = trainer.run(trainer.init(params), tokens, starts, still, key, 3)
    assert len(set(found[:3].tolist())) == 1
    windows = np.resize(stream(13), (1, 13)).astype(np.int32)
    logits = build_model(CALM).apply({"params": params}, windows[:, :-1])
    log = np.asarray(jax.nn.log_softmax(logits))[0]
    by_hand = -np.mean([log[place, windows[0, place + 1]] for place in range(12)])
    assert float(found[0]) == pytest.approx(by_hand, rel=1e-5)


def test_training_learns_and_reports_what_it_does():
    told = []
    phase = PhaseLength(samples=320, epochs=1)
    report = lambda done, total, loss: told.append((done, total, loss))
    params, curve = train(CONFIG, task_of(), phase, report=report)
    assert curve.shape == (80,)
    assert np.isfinite(curve).all()
    assert curve[0] == pytest.approx(math.log(VOCAB), abs=0.2)
    # The best that ignores its context reaches log(PERIOD) = 2.8 nats.
    assert curve[-10:].mean() < 0.1 * math.log(PERIOD)
    assert told == [(n, 80, float(curve[n - 1])) for n in (20, 40, 60, 80)]
    tokens = stream(40)[None].astype(np.int32)
    logits = build_model(CONFIG).apply({"params": params}, tokens[:, :-1])
    assert np.mean(np.argmax(logits, -1)[0, 2:] == tokens[0, 3:]) > 0.95


def test_a_diverging_training_fails_where_the_loss_does():
    wild = dataclasses.replace(SETTINGS, learning_rate=3e37, steps_per_call=7)
    task = task_of(wild)
    phase = PhaseLength(samples=80, epochs=1)
    starts = batch_starts(0, 500, wild, phase)
    trainer = make_trainer(build_model(CONFIG), wild)
    _, losses = trainer.run(
        starting_state(CONFIG, task),
        task.train_tokens,
        starts,
        Schedule.over(len(starts), wild),
        task.key("dropout"),
        len(starts),
    )
    bad = int(np.argmin(np.isfinite(losses)))
    assert bad > 0
    with pytest.raises(TrainingFailed, match=f"is (nan|inf) at step {bad}$"):
        train(CONFIG, task, phase)


def test_one_training_traces_and_compiles_its_loop_once(compiled):
    traced, built = compiled
    trainer = make_trainer(build_model(CALM), SETTINGS)
    state = trainer.init(draw_parameters(build_model(CALM), jax.random.key(0)))
    tokens, key = jnp.asarray(stream(500)), jax.random.key(1)
    for steps, stop in ((40, 6), (40, 6), (7, 1), (100, 3)):
        starts = np.full((CALL, 4), stop, np.int32)
        schedule = Schedule.over(steps, SETTINGS)
        state, _ = trainer.run(state, tokens, starts, schedule, key, stop)
    assert int(state.step) == 16
    assert (traced.count("run"), built.count("jit(run)")) == (1, 1)


def test_trainings_of_other_lengths_share_the_program(compiled):
    traced, built = compiled
    # A rate of its own: the trainer that is kept from another test is not this one.
    task = task_of(dataclasses.replace(SETTINGS, learning_rate=2e-2))
    int4 = dataclasses.replace(CALM, quantization="int4", pruning_ratio=0.5)
    for config, samples in ((CALM, 160), (CALM, 100), (int4, 60)):
        _, curve = train(config, task, PhaseLength(samples=samples, epochs=1))
        assert len(curve) == samples // 4
    assert (traced.count("run"), built.count("jit(run)")) == (1, 1)


def test_starting_leaves_the_given_weights_alone():
    task = task_of()
    params = draw_parameters(build_model(CALM), jax.random.key(3))
    on_device = jax.tree.map(jnp.asarray, params)
    begun = starting_state(CALM, task, on_device)
    chex.assert_trees_all_equal(begun.params, params)
    starts = batch_starts(0, 500, SETTINGS, PhaseLength(samples=8, epochs=1))
    done = [int(s.step) for s, _ in continue_training(CALM, task, begun, starts, "x")]
    assert done == [2]
    chex.assert_trees_all_equal(on_device, params)  # not donated
    fresh = starting_state(CALM, task).params
    seeded = starting_state(CALM, task_of(seed=1)).params
    assert not np.array_equal(fresh["embed"]["embedding"], params["embed"]["embedding"])
    assert not np.array_equal(fresh["embed"]["embedding"], seeded["embed"]["embedding"])


@pytest.mark.parametrize("changes", [{"samples": 0}, {"epochs": 0}, {"samples": -1}])
def test_an_empty_phase_is_refused(changes):
    with pytest.raises(ValueError, match="at least 1 sample and epoch"):
        PhaseLength(**{"samples": 1, "epochs": 1} | changes)


def test_phases_are_as_long_as_they_are_called():
    for phases in (PHASES, SMALL_PHASES):
        seen = [phases[name] for name in ("fast", "medium", "full")]
        assert [p.samples for p in seen] == sorted(p.samples for p in seen)
        windows = [p.samples * p.epochs for p in seen]
        assert windows == sorted(set(windows))
