"""RWKV-4: WKV, the time mix and the channel mix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import arch.model
from arch import ArchitectureConfig, build_model, init_states
from arch.initial import draw_parameters
from arch.layers.channel_mix import ChannelMix
from arch.mixers.rwkv import TimeMix
from arch.mixers.wkv import CHUNK, no_sums, wkv
from arch.traits import traits_of

VOCAB = 19
CONFIG = ArchitectureConfig(
    arch_type="rwkv",
    num_layers=2,
    hidden_dim=16,
    num_heads=1,
    ffn_multiplier=1.5,
    normalization="layernorm",
    activation="gelu",
    position_encoding="absolute",
    vocab_size=VOCAB,
)
# Lengths within a chunk, of whole chunks, with a rest, of more than two.
LENGTHS = (1, 5, CHUNK - 1, CHUNK, 3 * CHUNK + 7)

# Log-decays a token and deviations of the keys.
MILD = (np.linspace(-0.5, -0.001, 6), 2.0)
STRONG = (-np.exp([5.0, 5.0, 3.0, 2.0, -1.0, -5.0]), 50.0)


def operands(tokens, decay, deviation, batch=2, dtype=np.float32):
    """Decay, bonus, keys within +-2 deviations, values."""
    rng = np.random.default_rng(tokens)
    channels = len(decay)
    keys = deviation * rng.uniform(-2, 2, (batch, tokens, channels))
    values = rng.normal(size=(batch, tokens, channels))
    bonus = rng.normal(size=channels)
    drawn = decay.astype(np.float32), bonus.astype(np.float32), keys, values
    return tuple(jnp.asarray(x, x.dtype if x.ndim == 1 else dtype) for x in drawn)


def recurrence(decay, bonus, keys, values):
    """The paper's recurrence, token by token; and the logs of both last sums."""
    decay, bonus, keys, values = (
        np.asarray(x, np.longdouble) for x in (decay, bonus, keys, values)
    )
    total = weight = np.zeros_like(keys[:, 0])
    averages = []
    for key, value in zip(keys.swapaxes(0, 1), values.swapaxes(0, 1), strict=True):
        now = np.exp(bonus + key)
        averages.append((total + now * value) / (weight + now))
        total = np.exp(decay) * total + np.exp(key) * value
        weight = np.exp(decay) * weight + np.exp(key)
    return np.stack(averages, axis=1), total, weight


def attended(decay, bonus, keys, values):
    """The same as a softmax over all pairs of tokens."""
    at = jnp.arange(keys.shape[1])
    gap = (at[:, None] - at[None, :])[None, :, :, None]
    past = keys[:, None] + (gap - 1) * decay[None, None, None]
    now = keys[:, None] + bonus[None, None, None]
    scores = jnp.where(gap > 0, past, jnp.where(gap == 0, now, -jnp.inf))
    return jnp.einsum("btsd,bsd->btd", jax.nn.softmax(scores, axis=2), values)


def whole(decay, bonus, keys, values):
    return wkv(decay, bonus, keys, values, None)[0]


def in_parts(decay, bonus, keys, values):
    """The sequence in three parts, one of them a single token."""
    sums, parts = no_sums(keys.shape[0], keys.shape[2]), []
    for part in (
        slice(0, CHUNK + 2),
        slice(CHUNK + 2, CHUNK + 3),
        slice(CHUNK + 3, None),
    ):
        got, sums = wkv(decay, bonus, keys[:, part], values[:, part], sums)
        parts.append(got)
    return jnp.concatenate(parts, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def gradients(average, *arguments):
    """Of a function of the averages that weighs each differently."""
    loss = lambda *args: jnp.sin(3 * average(*args).astype(jnp.float32) + 1).sum()
    return jax.grad(loss, argnums=(0, 1, 2, 3))(*arguments)


def read_all(arguments, lengths=None, sums=None):
    _, _, keys, _ = arguments
    sums = no_sums(keys.shape[0], keys.shape[2]) if sums is None else sums
    return jax.jit(wkv)(*arguments, sums, lengths)


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("kind", [MILD, STRONG], ids=["mild", "strong"])
def test_wkv_is_the_naive_recurrence(kind, tokens):
    arguments = operands(tokens, *kind)
    wanted, total, weight = recurrence(*arguments)
    averages, sums = read_all(arguments)
    for got in (jax.jit(whole)(*arguments), averages):
        np.testing.assert_allclose(got, wanted, atol=2e-5)
    np.testing.assert_allclose(
        np.log(sums.denominator) + sums.maximum, np.log(weight), atol=2e-5, rtol=1e-6
    )
    np.testing.assert_allclose(
        sums.numerator / sums.denominator, total / weight, atol=2e-5
    )


def test_a_decay_of_minus_infinity_leaves_the_newest_token():
    decay, *others = operands(7, np.full(6, -np.inf), 2.0)
    averages, sums = read_all((decay, *others))
    wanted, *_ = recurrence(jnp.full_like(decay, -1e4), *others)
    for got in (jax.jit(whole)(decay, *others), averages):
        np.testing.assert_allclose(got, wanted, atol=2e-5)
    assert all(np.isfinite(leaf).all() for leaf in sums)


def test_a_slow_decay_survives_a_large_maximum():
    # Read one by one, a maximum of 1000 rounds each step of 1e-5 away.
    decay, tokens = jnp.full(1, -1e-5), 40 * CHUNK
    keys = jnp.zeros((1, tokens, 1)).at[:, 0].set(1000.0)
    values = jnp.zeros_like(keys).at[:, 0].set(1.0)
    sums = read_all((decay, jnp.zeros(1), keys, values))[1]
    logarithm = np.log(sums.numerator[0, 0]) + (sums.maximum[0, 0] - 1000)
    np.testing.assert_allclose(logarithm, -1e-5 * (tokens - 1), rtol=1e-2)


@pytest.mark.parametrize("kind", [MILD, STRONG], ids=["mild", "strong"])
@pytest.mark.parametrize(
    ("average", "tokens"),
    [(whole, 5), (whole, 2 * CHUNK + 5), (in_parts, 2 * CHUNK + 5)],
)
def test_wkv_has_the_gradients_of_a_softmax(average, tokens, kind):
    arguments = operands(tokens, *kind)
    wanted = gradients(attended, *arguments)
    for got, leaf in zip(gradients(average, *arguments), wanted, strict=True):
        assert np.abs(leaf).max() > 1e-4
        np.testing.assert_allclose(got, leaf, atol=1e-4 * np.abs(leaf).max() + 1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_finite_under_strong_decay(dtype):
    arguments = operands(2 * CHUNK + 3, *STRONG, dtype=dtype)
    assert np.abs(np.asarray(arguments[2], np.float32)).max() > 90  # beyond exp
    wanted, _, _ = recurrence(*arguments)
    np.testing.assert_allclose(jax.jit(whole)(*arguments), wanted, atol=2e-5)
    for gradient in gradients(whole, *arguments):
        assert np.isfinite(np.asarray(gradient, np.float32)).all()
        assert np.any(gradient != 0)


def test_padding_leaves_the_sums_as_they_were():
    lengths = np.array([0, 1, 7, CHUNK, CHUNK + 5])
    first, then = (operands(tokens, *MILD, batch=5) for tokens in (9, CHUNK + 5))
    then = first[:2] + then[2:]
    before = read_all(first)[1]
    averages, sums = read_all(then, jnp.asarray(lengths), before)
    for row, length in enumerate(lengths):
        parts = [
            jnp.concatenate([old[row], new[row, :length]])[None]
            for old, new in zip(first[2:], then[2:], strict=True)
        ]
        wanted, total, weight = recurrence(*first[:2], *parts)
        np.testing.assert_allclose(
            averages[row, :length], wanted[0, 9:].astype(float), atol=1e-5
        )
        np.testing.assert_allclose(
            np.log(sums.denominator[row]) + sums.maximum[row],
            np.log(weight[0]).astype(float),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            sums.numerator[row] / sums.denominator[row],
            (total / weight)[0].astype(float),
            atol=1e-5,
        )
    for tokens in (1, 2):
        _, still = read_all(operands(tokens, *MILD, batch=5), jnp.zeros(5, int), sums)
        for got, leaf in zip(still, sums, strict=True):
            np.testing.assert_array_equal(got, leaf)


def test_one_token_is_read_without_a_loop():
    arguments = (*operands(1, *MILD), no_sums(2, 6))
    assert "scan" not in str(jax.make_jaxpr(wkv)(*arguments))
    longer = (*operands(2, *MILD), no_sums(2, 6))
    assert "scan" in str(jax.make_jaxpr(wkv)(*longer))


def test_memory_is_linear_in_the_tokens():
    def temporary(tokens):
        compiled = gradients.lower(whole, *operands(tokens, *MILD)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(64 * CHUNK) < 2.2 * temporary(32 * CHUNK)


# ---- the sub-layers, written again ----


def weights_of(config, seed=0):
    """Random weights, each tensor away from where it starts."""
    rng = np.random.default_rng(seed)

    def perturb(path, leaf):
        noise = rng.normal(size=leaf.shape) * (leaf.std() if leaf.ndim > 2 else 0.2)
        return (leaf + noise).astype(np.float32)

    drawn = draw_parameters(build_model(config), jax.random.key(seed))
    return jax.tree_util.tree_map_with_path(perturb, drawn)


def layer_of(name):
    tree = weights_of(CONFIG)["blocks"][name]
    return jax.tree.map(lambda leaf: leaf[0], tree)


def mixed(x, share):
    before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
    return share * x + (1 - share) * before


def time_mix(x, weights):
    key, value, receptance = (
        mixed(x, weights[f"mix_{name}"]) @ weights[name]["kernel"]
        for name in ("key", "value", "receptance")
    )
    averages, _, _ = recurrence(-np.exp(weights["decay"]), weights["bonus"], key, value)
    return (special.expit(receptance) * averages) @ weights["output"]["kernel"]


def channel_mix(x, weights):
    up = mixed(x, weights["mix_key"]) @ weights["up"]["kernel"]
    gate = mixed(x, weights["mix_receptance"]) @ weights["receptance"]["kernel"]
    down = np.maximum(up, 0) ** 2 @ weights["down"]["kernel"]
    return special.expit(gate) * down


@pytest.mark.parametrize(
    ("module", "name", "by_hand"),
    [(TimeMix, "mixer", time_mix), (ChannelMix, "feedforward", channel_mix)],
)
def test_a_sublayer_is_its_formula(module, name, by_hand):
    weights = layer_of(name)
    x = np.random.default_rng(2).normal(size=(2, CHUNK + 3, CONFIG.hidden_dim))
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights)
    wanted = by_hand(x, exact).astype(np.float64)
    assert wanted.std() > 0.1
    for dtype, tolerance in ((jnp.float32, 2e-6), (jnp.bfloat16, 0.02)):
        layer = module(CONFIG, dtype)
        apply = functools.partial(layer.apply, state=None, traits=traits_of(CONFIG))
        got, state = jax.jit(apply)({"params": weights}, jnp.asarray(x, dtype))
        assert state is None
        assert got.dtype == dtype
        error = np.abs(np.asarray(got, np.float64) - wanted).max()
        assert error < tolerance * np.abs(wanted).max()


# ---- the whole model ----


@pytest.fixture
def looped(monkeypatch):
    """The layers as a loop, which compiles faster."""
    monkeypatch.setattr(arch.model, "UNROLLED_LAYERS", 0)


def tokens_of(batch, length):
    drawn = np.random.default_rng(3).integers(0, VOCAB, (batch, length))
    return jnp.asarray(drawn, jnp.int32)


@pytest.mark.usefixtures("looped")
def test_reading_in_ragged_parts_equals_reading_at_once():
    model, params = build_model(CONFIG), weights_of(CONFIG)
    lengths = np.array([[1, 1], [CHUNK + 2, 0], [7, 1]])
    sizes = lengths.max(axis=0)
    tokens = tokens_of(3, int(lengths.sum(axis=1).max()))
    wanted = jax.jit(model.apply)({"params": params}, tokens)
    states, read = init_states(CONFIG, 3, 1), np.zeros(3, int)
    for size, part in zip(sizes, lengths.T, strict=True):
        # What stands behind a row's real tokens must not matter.
        now = np.full((3, size), VOCAB - 1)
        for row, number in enumerate(part):
            now[row, :number] = tokens[row, read[row] : read[row] + number]
        extend = lambda *args: model.apply(*args, method="extend")
        logits, states = jax.jit(extend)(
            {"params": params}, jnp.asarray(now), states, jnp.asarray(part)
        )
        for row, number in enumerate(part):
            some = wanted[row, read[row] : read[row] + number]
            np.testing.assert_allclose(logits[row, :number], some, atol=1e-5)
        read += part
    np.testing.assert_array_equal(states.read, read)
