"""Mamba against its recurrence in float64, and what padding and pruning leave."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import arch.model
from arch import ArchitectureConfig, build_model
from arch.config import NORMALIZATIONS
from arch.initial import draw_parameters
from arch.layout import layout_of
from arch.mixers.mamba import Mamba, Tokens, chunk_size, mamba_state, selective_scan
from arch.padding import pad
from arch.traits import traits_of
from jaxnas.compress.prune import prune, prune_in_place
from jaxnas.training.loop import _is_matrix

VOCAB = 13
TINY = ArchitectureConfig(
    arch_type="mamba",
    num_layers=2,
    hidden_dim=40,  # a step rank of 3, not a whole sixteenth of the width
    num_heads=1,
    ffn_multiplier=4.0,
    normalization="rmsnorm",
    activation="gelu",
    position_encoding="absolute",
    vocab_size=VOCAB,
)
# What weight decay must not pull to zero.
VECTORS = {"conv_kernel", "conv_bias", "dt_bias", "A_log", "D", "scale"}


@pytest.fixture(autouse=True)
def _looped_layers(monkeypatch):
    """As a loop the layers compile faster."""
    monkeypatch.setattr(arch.model, "UNROLLED_LAYERS", 0)


def weights_of(config, seed=0):
    """Initial weights, every tensor moved away from its initial value."""
    rng = np.random.default_rng(seed)
    drawn = draw_parameters(build_model(config), jax.random.key(seed))
    moved = lambda leaf: leaf + rng.normal(0, 0.2, leaf.shape)
    return jax.tree.map(lambda leaf: moved(leaf).astype(np.float32), drawn)


def mixer_of(config, seed=0):
    """The first layer's mixer: its weights."""
    mixer = weights_of(config, seed)["blocks"]["mixer"]
    return jax.tree.map(lambda leaf: leaf[0], mixer)


def stream_of(shape, seed=1):
    drawn = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(drawn, jnp.float32)


def tokens_of(batch, length, seed=2):
    drawn = np.random.default_rng(seed).integers(0, VOCAB, (batch, length))
    return jnp.asarray(drawn, jnp.int32)


@functools.cache
def reader(config, dtype=jnp.float32):
    """Jitted: (weights, x, state, lengths) -> the mixer's output and state."""
    layer, traits = Mamba(config, dtype), traits_of(config)

    def read(weights, x, state=None, lengths=None):
        return layer.apply({"params": weights}, x, state, traits, None, lengths)

    return jax.jit(read)


# ---- the recurrence ----


def recurrence(rates, step, x, write, read, hidden):
    """Token by token in float64; rates [E, N], hidden [B, E, N]."""
    outputs = []
    for t in range(x.shape[1]):
        decay = np.exp(step[:, t, :, None] * rates)
        added = (step * x)[:, t, :, None] * write[:, t, None, :]
        hidden = decay * hidden + added
        outputs.append((hidden * read[:, t, None, :]).sum(axis=-1))
    return np.stack(outputs, axis=1), hidden


def scanned(length, batch=2, inner=5, states=16, longest=3.0):
    """Rates [E, N], tokens and states [B, E, N] at random."""
    rng = np.random.default_rng(length)
    rates = -rng.uniform(0.1, 16, (inner, states))
    step = rng.uniform(0, longest, (batch, length, inner))
    x = rng.normal(size=(batch, length, inner))
    write, read = rng.normal(size=(2, batch, length, states))
    return rates, Tokens(step, x, write, read), rng.normal(size=(batch, inner, states))


def to_float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


# One token, one chunk, several, and a last one that is not full.
LENGTHS = (1, 16, 32, 53)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_scan_is_the_recurrence(length):
    rates, tokens, hidden = scanned(length)
    wanted, end = recurrence(rates, *tokens, hidden)
    got, got_end = jax.jit(selective_scan)(
        *to_float32((rates.T, tokens, hidden.swapaxes(1, 2)))
    )
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    np.testing.assert_allclose(got_end, end.swapaxes(1, 2), atol=1e-5)


def sequential(rates, tokens, hidden):
    """The same in JAX, differentiated by JAX."""

    def read(hidden, at):
        step, x, write, into = at
        decay = jnp.exp(jnp.einsum("be,ne->bne", step, rates))
        hidden = decay * hidden + jnp.einsum("be,bn->bne", step * x, write)
        return hidden, jnp.einsum("bne,bn->be", hidden, into)

    time_first = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), tuple(tokens))
    hidden, y = jax.lax.scan(read, hidden, time_first)
    return y.swapaxes(0, 1), hidden


@pytest.mark.parametrize("length", LENGTHS)
def test_slopes_are_those_of_the_sequential_scan(length):
    of_y, of_hidden = stream_of((2, length, 5)), stream_of((2, 16, 5))

    def slopes_of(scan):
        def weighed(rates, tokens, hidden):
            y, end = scan(rates, tokens, hidden)
            return (y * of_y).sum() + (end * of_hidden).sum()

        return jax.jit(jax.grad(weighed, argnums=(0, 1, 2)))

    got, wanted = slopes_of(selective_scan), slopes_of(sequential)
    for longest in (0.1, 50.0):  # much is remembered, or next to nothing
        rates, tokens, hidden = scanned(length, longest=longest)
        inputs = to_float32((rates.T, tokens, hidden.swapaxes(1, 2)))
        pairs = zip(*map(jax.tree.leaves, (got(*inputs), wanted(*inputs))), strict=True)
        for one, other in pairs:
            largest = max(1, np.abs(other).max())
            np.testing.assert_allclose(one, other, atol=1e-5 * largest)


@pytest.mark.parametrize("length", [1, 2, 100, 128, 129, 2048, 5000])
def test_chunks_hold_as_many_states_as_there_are_between_them(length):
    size = chunk_size(length)
    assert size & (size - 1) == 0
    assert size == 16 or length <= size**2 < 4 * length


def test_the_states_of_all_tokens_are_never_there_at_once():
    rates, tokens, _ = scanned(1024, batch=1, inner=32)
    rates, tokens = to_float32((rates.T, tokens))
    weigh = lambda rates, tokens: selective_scan(rates, tokens, None)[0].sum()
    differentiate = jax.jit(jax.grad(weigh, argnums=(0, 1)))
    compiled = differentiate.lower(rates, tokens).compile()
    every_state = 1024 * rates.nbytes
    assert compiled.memory_analysis().temp_size_in_bytes < every_state / 2


# ---- the mixer ----


def mixer_by_hand(weights, x):
    """The published forward pass in float64, token by token."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
    kernel = lambda name: weights[name]["kernel"]
    scanned, gate = np.einsum("btd,dge->gbte", x, kernel("in_proj"))
    convolved = np.tile(weights["conv_bias"], (*x.shape[:2], 1))
    for t in range(x.shape[1]):
        for back in range(min(4, t + 1)):
            convolved[:, t] += weights["conv_kernel"][3 - back] * scanned[:, t - back]
    convolved = convolved * special.expit(convolved)
    drawn = convolved @ kernel("x_proj")
    step = np.logaddexp(0, drawn[..., 32:] @ kernel("dt_proj") + weights["dt_bias"])
    rates = -np.exp(weights["A_log"])
    empty = np.zeros((x.shape[0], *rates.shape))
    y, _ = recurrence(rates, step, convolved, drawn[..., :16], drawn[..., 16:32], empty)
    y = (y + weights["D"] * convolved) * gate * special.expit(gate)
    return y @ kernel("out_proj")


@pytest.mark.parametrize("inner_dim", [None, 24])
def test_the_mixer_computes_the_published_formulas(inner_dim):
    config = dataclasses.replace(TINY, inner_dim=inner_dim)
    weights, x = mixer_of(config), stream_of((3, 37, 40))
    assert weights["x_proj"]["kernel"].shape == (inner_dim or 80, 35)
    wanted = mixer_by_hand(weights, np.asarray(x, np.float64))
    assert wanted.std() > 0.3
    got, state = reader(config)(weights, x)
    assert state is None
    np.testing.assert_allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize("cuts", [(1, 2, 3), (34, 35, 36), (1, 35)])
def test_reading_in_parts_equals_reading_at_once(cuts):
    weights, x = mixer_of(TINY), stream_of((2, 37, 40))
    whole, _ = reader(TINY)(weights, x)
    state, parts = mamba_state(TINY, 2, capacity=0), []
    for part in np.split(np.asarray(x), cuts, axis=1):
        y, state = reader(TINY)(weights, jnp.asarray(part), state)
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


def test_padding_never_enters_the_state():
    weights, x = mixer_of(TINY), stream_of((4, 37, 40))
    whole, _ = reader(TINY)(weights, x)
    state = mamba_state(TINY, 4, capacity=0)
    starts = np.zeros(4, int)
    for lengths in np.array([[1, 2, 18, 20], [7, 0, 1, 3], [2, 20, 3, 9]]):
        padded = np.full((4, 20, 40), 100.0, np.float32)
        places = list(enumerate(zip(starts, lengths, strict=True)))
        for row, (start, length) in places:
            padded[row, :length] = x[row, start : start + length]
        y, state = reader(TINY)(weights, jnp.asarray(padded), state, lengths)
        for row, (start, length) in places:
            wanted = whole[row, start : start + length]
            np.testing.assert_allclose(y[row, :length], wanted, atol=1e-5)
        starts += lengths


def test_one_more_token_runs_no_loop():
    layer, weights = Mamba(TINY, jnp.float32), mixer_of(TINY)
    state, x = mamba_state(TINY, 2, capacity=0), stream_of((2, 2, 40))

    def loops(x):
        run = lambda x: layer.apply({"params": weights}, x, state, traits_of(TINY))
        text = str(jax.make_jaxpr(run)(x))
        return "scan" in text or "while" in text or "checkpoint" in text

    assert loops(x)
    assert not loops(x[:, :1])


def test_the_state_keeps_its_dtypes():
    state = mamba_state(TINY, 2, capacity=0, dtype=jnp.bfloat16)
    x = stream_of((2, 5, 40)).astype(jnp.bfloat16)
    y, after = reader(TINY, jnp.bfloat16)(mixer_of(TINY), x, state)
    assert y.dtype == after.inputs.dtype == jnp.bfloat16
    assert after.hidden.dtype == jnp.float32
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    wanted = mixer_by_hand(mixer_of(TINY), np.asarray(x, np.float64))
    error = np.linalg.norm(np.asarray(y, np.float64) - wanted)
    assert error < 0.03 * np.linalg.norm(wanted)


@functools.cache
def mixer_slopes(dtype):
    """Jitted: (weights, x, slopes of the output) -> those of weights and x."""

    def weigh(weights, x, of_y):
        return (reader(TINY, dtype)(weights, x)[0] * of_y).sum()

    return jax.jit(jax.grad(weigh, argnums=(0, 1)))


def test_slopes_are_those_of_the_published_formulas():
    weights, x, of_y = mixer_of(TINY), stream_of((2, 20, 40)), stream_of((2, 20, 40), 3)
    inputs, shape = jax.tree.flatten((weights, np.asarray(x)))
    slopes = jax.tree.leaves(mixer_slopes(jnp.float32)(weights, x, of_y))
    rng, small = np.random.default_rng(4), 1e-5
    for at, slope in enumerate(slopes):
        way = rng.normal(size=slope.shape)
        ends = []
        for sign in (-1, 1):
            moved = [np.asarray(leaf, np.float64) for leaf in inputs]
            moved[at] += sign * small * way
            y = mixer_by_hand(*jax.tree.unflatten(shape, moved))
            ends.append((y * np.asarray(of_y, np.float64)).sum())
        wanted = (ends[1] - ends[0]) / (2 * small)
        got = (np.asarray(slope) * way).sum()
        assert abs(got - wanted) < 1e-4 * np.linalg.norm(slope)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_slopes_are_finite_whatever_the_steps(dtype):
    weights, x = mixer_of(TINY), stream_of((2, 20, 40)).astype(dtype)
    # From a state that never decays to one that is forgotten at once.
    weights["dt_bias"] = np.linspace(-30, 30, 80, dtype=np.float32)
    weights["A_log"] = 3 * weights["A_log"]
    slopes = mixer_slopes(dtype)(weights, x, jnp.ones_like(x))
    for slope in jax.tree.leaves(slopes):
        assert np.isfinite(slope).all()
        assert np.any(slope)


# ---- the model ----


def data_of(config):
    return jax.tree.map(jnp.asarray, traits_of(config))


@functools.cache
def slopes_in(config):
    """Jitted: (params, traits) -> loss, and its slopes."""
    tokens = tokens_of(3, 9)

    def loss(params, traits):
        logits = build_model(config).apply({"params": params}, tokens, traits)
        return optax.softmax_cross_entropy_with_integer_labels(
            logits[:, :-1], tokens[:, 1:]
        ).mean()

    return jax.jit(jax.value_and_grad(loss))


WIDE = dataclasses.replace(TINY, num_layers=3, hidden_dim=64)


@pytest.mark.parametrize("norm", NORMALIZATIONS)
@pytest.mark.sweep(3)
def test_a_padded_member_computes_and_learns_what_it_does_alone(norm):
    config = dataclasses.replace(TINY, normalization=norm)
    params, traits = weights_of(config), data_of(config)
    loss, slopes = slopes_in(TINY)(params, traits)
    padded_loss, padded_slopes = slopes_in(WIDE)(pad(params, config, WIDE), traits)
    np.testing.assert_allclose(padded_loss, loss, atol=1e-5)
    inside = pad(jax.tree.map(np.ones_like, params), config, WIDE)
    wanted = pad(slopes, config, WIDE)
    for got, slope, true in zip(
        *map(jax.tree.leaves, (padded_slopes, wanted, inside)), strict=True
    ):
        assert (true == 0).any()
        np.testing.assert_array_equal(np.asarray(got)[true == 0], 0.0)
        assert np.linalg.norm(slope) > 0
        assert np.linalg.norm(got - slope) <= 1e-4 * np.linalg.norm(slope)


@functools.cache
def logits_of(config):
    model = build_model(config)
    return jax.jit(lambda params: model.apply({"params": params}, tokens_of(2, 9)))


def test_pruning_in_place_is_the_function_of_the_cut_out_model():
    config = dataclasses.replace(TINY, pruning_ratio=0.5)
    params = weights_of(config)
    smaller, cut = prune(config, params)
    assert smaller.inner_dim == 32 < config.inner_channels
    assert cut["blocks"]["mixer"]["A_log"].shape == (2, 32, 16)
    found = logits_of(config)(prune_in_place(params, smaller.inner_dim))
    wanted = logits_of(smaller)(cut)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(logits_of(config)(params) - wanted).max() > 0.1


def test_weight_decay_spares_what_is_no_matrix():
    params = weights_of(TINY)
    decayed = jax.tree_util.tree_leaves_with_path(_is_matrix(params))
    assert {path[-1].key for path, _ in decayed} > VECTORS
    for path, decays in decayed:
        assert decays == (path[-1].key not in VECTORS)
        assert decays == layout_of(path).matrix
