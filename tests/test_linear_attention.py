"""Linear attention equals the matrix of weights that it never holds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import ArchitectureConfig
from arch.config import POSITION_ENCODINGS
from arch.mixers import linear_attention
from arch.mixers.linear_attention import (
    CHUNK,
    LinearAttention,
    Pair,
    linear_state,
    read,
)
from arch.padding import pad, parameter_shapes
from arch.traits import channel_index, traits_of

CONFIG = ArchitectureConfig(
    arch_type="linear_transformer",
    num_layers=1,
    hidden_dim=48,
    num_heads=3,
    ffn_multiplier=1.0,
    normalization="layernorm",
    activation="gelu",
    position_encoding="rope",
    vocab_size=5,
)
SLOPES = np.array([2.0**-4, 2.0**-8, 2.0**-2])  # ALiBi's for three heads
LONG = 3 * CHUNK + 1  # chunks that do not divide it

positions = pytest.mark.parametrize("position", POSITION_ENCODINGS)


def variant(position, **changes):
    return dataclasses.replace(CONFIG, position_encoding=position, **changes)


@functools.cache
def weights_of(config=CONFIG, seed=0):
    """Queries and keys of a deviation near 1.5: features from 0.01 to 5."""
    rng = np.random.default_rng(seed)
    width, heads = config.hidden_dim, config.num_heads
    into, back = (width, heads, width // heads), (heads, width // heads, width)
    shapes = {"query": into, "key": into, "value": into, "out": back}
    return {
        name: {"kernel": rng.normal(0, 1.5 / width**0.5, shape).astype(np.float32)}
        for name, shape in shapes.items()
    }


def inputs(batch=2, tokens=LONG, width=48, seed=1):
    drawn = np.random.default_rng(seed).normal(size=(batch, tokens, width))
    return jnp.asarray(drawn, jnp.float32)


def data_of(config):
    return jax.tree.map(jnp.asarray, traits_of(config))


@functools.cache
def reader(config=CONFIG, dtype=jnp.float32):
    """jit of (weights, x, state, traits, lengths): one program for all traits."""

    def run(weights, x, state, traits, lengths):
        mixer = LinearAttention(config, dtype)
        return mixer.apply({"params": weights}, x, state, traits, None, lengths)

    return jax.jit(run)


def mix(config, x, state=None, lengths=None, dtype=jnp.float32):
    """The mixer with its position encoding as data."""
    run = reader(CONFIG, dtype)
    return run(weights_of(), x.astype(dtype), state, data_of(config), lengths)


# ---- the matrix of weights ----


def features(x, xp=np):
    return xp.where(x > 0, x, xp.expm1(xp.minimum(x, 0))) + 1


def turned(x, xp=np):
    """[B, T, N, H], each pair of channels a complex number."""
    length, size = x.shape[1], x.shape[-1]
    turns = np.exp(
        1j * np.outer(np.arange(length), 10000.0 ** (-np.arange(0, size, 2) / size))
    )
    turns = xp.asarray(turns)[None, :, None]
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turns
    return xp.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def quadratic(query, key, values, slopes, rotary, xp=np):
    """Weights over all earlier tokens: three of [B, T, N, H] -> [B, T, N, H]."""
    at = np.arange(query.shape[1])
    apart = at[:, None] - at[None]
    fade = np.exp(-slopes[:, None, None] * np.maximum(apart, 0)) * (apart >= 0)
    fade = xp.asarray(fade, values.dtype)[None]
    products = lambda q, k: xp.einsum("btnh,bsnh->bnts", q, k) * fade
    total = products(query, key).sum(axis=-1, keepdims=True)
    if rotary:
        query, key = turned(query, xp), turned(key, xp)
    return xp.einsum("bnts,bsnh->btnh", products(query, key) / total, values)


def by_hand(config, weights, x, xp=np):
    project = lambda name: xp.einsum("btd,dnh->btnh", x, weights[name]["kernel"])
    encoding = config.position_encoding
    slopes = SLOPES if encoding == "alibi" else 0 * SLOPES
    query, key = features(project("query"), xp), features(project("key"), xp)
    mixed = quadratic(query, key, project("value"), slopes, encoding == "rope", xp)
    return xp.einsum("btnh,nhd->btd", mixed, weights["out"]["kernel"])


def exactly(config, x):
    """by_hand in float64."""
    as_float64 = lambda leaf: np.asarray(leaf, np.float64)
    weights = jax.tree.map(as_float64, weights_of())
    return by_hand(config, weights, as_float64(x))


@positions
@pytest.mark.parametrize("tokens", [1, 7, CHUNK, CHUNK + 1, LONG])
def test_it_equals_the_quadratic_form(position, tokens):
    x = inputs(tokens=tokens)
    got, nothing = mix(variant(position), x)
    wanted = exactly(variant(position), x)
    assert nothing is None
    assert wanted.std() > 0.1
    np.testing.assert_allclose(got, wanted, atol=2e-5)


@positions
@pytest.mark.sweep(3)
def test_gradients_equal_those_of_the_quadratic_form(position):
    config, x = variant(position), inputs()
    direction = inputs(seed=2)

    def slope(function):
        loss = lambda weights, x: (function(weights, x) * direction).sum()
        return jax.jit(jax.grad(loss, (0, 1)))(weights_of(), x)

    mixer, traits = LinearAttention(config, jnp.float32), traits_of(config)
    got = slope(lambda weights, x: mixer.apply({"params": weights}, x, None, traits)[0])
    wanted = slope(lambda weights, x: by_hand(config, weights, x, jnp))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.linalg.norm(other) > 1
        assert np.linalg.norm(one - other) < 2e-5 * np.linalg.norm(other)


# ---- reading in parts ----


def states_by_hand(config, x, lengths):
    """The sums over each row's first tokens, weight by weight, in float64."""
    as_float64 = lambda leaf: np.asarray(leaf, np.float64)
    weights, x = jax.tree.map(as_float64, (weights_of(), x))
    project = lambda name: np.einsum("btd,dnh->btnh", x, weights[name]["kernel"])
    key, values = features(project("key")), project("value")
    fade = np.zeros((*x.shape[:2], 3))
    for row, length in enumerate(lengths):
        behind = length - 1 - np.arange(length)[:, None]
        slopes = SLOPES if config.position_encoding == "alibi" else 0 * SLOPES
        fade[row, :length] = np.exp(-slopes * behind)
    rotated = turned(key) if config.position_encoding == "rope" else key
    kv = np.einsum("btnh,btne,btn->bnhe", rotated, values, fade)
    return kv, np.einsum("btnh,btn->bnh", key, fade)


@positions
def test_ragged_parts_equal_the_whole(position):
    config, rows = variant(position), 3
    x, whole = inputs(rows), exactly(variant(position), inputs(rows))
    state, read_so_far = linear_state(config, rows, 0), np.zeros(rows, int)
    # Many chunks, none, part of one; one token or none; the rest.
    for part in ([130, 0, 20], [1, 1, 0], [60, 100, 130]):
        tokens = max(part)
        padded = np.full((rows, tokens, 48), 9.0, np.float32)
        for row, (start, number) in enumerate(zip(read_so_far, part, strict=True)):
            padded[row, :number] = x[row, start : start + number]
        got, state = mix(config, jnp.asarray(padded), state, jnp.asarray(part))
        assert np.isfinite(got).all()
        for row, (start, number) in enumerate(zip(read_so_far, part, strict=True)):
            wanted = whole[row, start : start + number]
            np.testing.assert_allclose(got[row, :number], wanted, atol=2e-5)
        read_so_far += part
        kv, k = states_by_hand(config, x, read_so_far)
        np.testing.assert_allclose(state.kv, kv, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state.k, k, rtol=1e-4)
        assert state.length.tolist() == read_so_far.tolist()


@positions
def test_padding_without_a_state_changes_nothing(position):
    x, lengths = inputs(), (LONG, 70)
    got, nothing = mix(variant(position), x, None, jnp.asarray(lengths))
    assert nothing is None
    wanted = exactly(variant(position), x)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(got[row, :length], wanted[row, :length], atol=2e-5)


def equations_of(jaxpr):
    """Those of functions with a gradient of their own included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "custom_vjp_call":
            yield from equations_of(equation.params["call_jaxpr"])
        else:
            yield equation


@positions
def test_one_more_token_costs_one_step(position):
    config = variant(position)
    state, traits = linear_state(config, 2, 10**9), traits_of(config)

    def run(x, state):
        mixer = LinearAttention(config, jnp.float32)
        return mixer.apply({"params": weights_of()}, x, state, traits)

    equations = list(equations_of(jax.make_jaxpr(run)(inputs(tokens=1), state)))
    names = [equation.primitive.name for equation in equations]
    # Four projections and the query's product with the state.
    assert names.count("dot_general") == 5
    assert not {"scan", "while", "pad"} & set(names)
    assert sum(leaf.size for leaf in state) == 2 * (3 * 16 * 16 + 3 * 16 + 1)


# ---- decay ----


@functools.cache
def decaying(steep):
    """Features and values of 2,048 tokens, slopes, and their quadratic form."""
    rng = np.random.default_rng(0)
    query, key = rng.uniform(0.01, 3, (2, 1, 2048, 2, 4))
    values = rng.normal(size=(1, 2048, 2, 4))
    slopes = np.array(steep)
    return query, key, values, slopes, quadratic(query, key, values, slopes, False)


# ALiBi's steepest for 8 and for many heads, and far beyond.
@pytest.mark.parametrize(
    ("steep", "dtype"),
    [
        ((0.99, 50.0), jnp.float32),
        ((0.99, 50.0), jnp.bfloat16),
        ((0.5, 2.0**-8), jnp.bfloat16),
    ],
)
def test_steep_decay_over_many_tokens(steep, dtype):
    query, key, values, slopes, wanted = decaying(steep)
    pair = Pair(jnp.asarray(query, jnp.float32), jnp.asarray(key, jnp.float32))

    def run(pair, values):
        got, _ = read(pair, None, values, jnp.asarray(slopes, jnp.float32))
        return jnp.sum(got * wanted.astype(np.float32)), got

    compute = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
    (_, got), grads = compute(pair, jnp.asarray(values, dtype))
    assert got.dtype == jnp.float32
    atol = 1e-5 if dtype == jnp.float32 else 0.03
    np.testing.assert_allclose(got, wanted, atol=atol)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf.astype(jnp.float32)).all()
        assert np.any(leaf != 0)


# ---- precision ----


@positions
def test_bfloat16_is_near_float32_and_keeps_its_state_in_float32(position):
    config, x = variant(position), inputs()
    empty = linear_state(config, 2, LONG, jnp.bfloat16)
    got, state = mix(config, x, empty, dtype=jnp.bfloat16)
    assert got.dtype == jnp.bfloat16
    assert state.kv.dtype == state.k.dtype == jnp.float32
    wanted = exactly(config, x)
    error = np.abs(got.astype(jnp.float32) - wanted).mean() / np.abs(wanted).mean()
    assert 1e-3 < error < 0.02
    kv, k = states_by_hand(config, x, (LONG, LONG))
    assert np.abs(state.kv - kv).mean() < 0.01 * np.abs(kv).mean()
    assert np.abs(state.k - k).mean() < 0.002 * np.abs(k).mean()


def test_matrix_products_take_bfloat16():
    config = variant("rope")
    traits, empty = traits_of(config), linear_state(config, 2)

    def run(x, state):
        mixer = LinearAttention(config, jnp.bfloat16)
        return mixer.apply({"params": weights_of()}, x, state, traits)

    jaxpr = jax.make_jaxpr(run)(inputs().astype(jnp.bfloat16), empty)
    equations = list(equations_of(jaxpr))
    products = [e for e in equations if e.primitive.name == "dot_general"]
    wide = [e for e in products if e.invars[0].aval.dtype == jnp.float32]
    # Projections, weights twice, mix, sums, mix of the sums; in float32 the
    # product of a query with the sum that divides.
    assert (len(products), len(wide)) == (10, 1)


@pytest.mark.parametrize(("tokens", "dtype"), [(1, jnp.bfloat16), (70, jnp.float32)])
def test_features_that_vanish_divide_safely(tokens, dtype):
    config = variant("rope")
    traits, x = data_of(config), jnp.abs(inputs(tokens=tokens)).astype(dtype) + 1

    @jax.jit
    def slopes(weights):
        def loss(weights, x):
            state = linear_state(config, 2)
            mixer = LinearAttention(config, dtype)
            y, state = mixer.apply({"params": weights}, x, state, traits)
            return jnp.square(y.astype(jnp.float32)).sum(), (y, state)

        return jax.grad(loss, (0, 1), has_aux=True)(weights, x)

    # Below -10, -40 and -200: features of 1e-5, 1e-18 and 0.
    for size in (10, 40, 200):
        low = {"kernel": np.full((48, 3, 16), -size / 48, np.float32)}
        for names in (("query",), ("key",), ("query", "key")):
            found = slopes({**weights_of(), **dict.fromkeys(names, low)})
            for leaf in jax.tree.leaves(found):
                assert np.isfinite(leaf.astype(jnp.float32)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_features_keep_their_digits(dtype):
    x = jnp.linspace(-80, 200, 1001, dtype=dtype)[None]
    exact = np.asarray(x, np.float64)
    wanted = np.where(exact > 0, exact + 1, np.exp(np.minimum(exact, 0)))
    got = linear_attention.features(x, head_dim=1001)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_features_have_the_slope_of_elu():
    one = lambda x: linear_attention.features(x[None], head_dim=1)[0]
    for at, slope in ((-1.0, np.exp(-1)), (0.0, 1.0), (200.0, 1.0)):
        assert jax.grad(one)(at) == pytest.approx(slope)


# ---- padding of a smaller model ----


@functools.cache
def padded_weights(member):
    """The member's weights in the places they take in CONFIG's zeros."""
    zeros = lambda leaf: np.zeros(leaf.shape, leaf.dtype)
    tree = jax.tree.map(zeros, parameter_shapes(member))
    tree["blocks"]["mixer"] = jax.tree.map(lambda leaf: leaf[None], weights_of(member))
    mixer = pad(tree, member, CONFIG)["blocks"]["mixer"]
    return jax.tree.map(lambda leaf: leaf[0], mixer)


@functools.partial(jax.jit, static_argnums=0)
def gradients(config, weights, x, traits):
    """Gradients by the weights and x, what the mixer gives, and its state."""

    def loss(weights, x):
        mixer, state = LinearAttention(config, jnp.float32), linear_state(config, 2)
        y, state = mixer.apply({"params": weights}, x, state, traits)
        return jnp.square(y).sum(), (y, state)

    return jax.grad(loss, (0, 1), has_aux=True)(weights, x)


@positions
@pytest.mark.parametrize("tokens", [1, 70])
@pytest.mark.sweep(3)
def test_a_padded_member_is_the_member_alone(position, tokens):
    member = dataclasses.replace(CONFIG, hidden_dim=24)
    traits = data_of(dataclasses.replace(member, position_encoding=position))
    wide = padded_weights(member)
    stream = np.flatnonzero(channel_index(48, 24)[1])
    narrow = inputs(tokens=tokens, width=24)
    x = jnp.zeros((2, tokens, 48)).at[..., stream].set(narrow)
    (grads, into), (y, state) = gradients(CONFIG, wide, x, traits)
    alone = gradients(member, weights_of(member), narrow, traits)
    (own_grads, into_own), (wanted, end) = alone
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(y[..., stream], wanted, atol=1e-5)
    close(into[..., stream], into_own)
    close(state.kv[:, :, :8, :8], end.kv)
    close(state.k[:, :, :8], end.k)
    for name, leaf in grads.items():
        inside = wide[name]["kernel"] != 0
        gradient = np.asarray(leaf["kernel"])
        np.testing.assert_array_equal(gradient[~inside], 0.0)
        close(gradient[inside], np.ravel(own_grads[name]["kernel"]))
    others = np.delete(np.arange(48), stream)
    np.testing.assert_array_equal(y[..., others], 0.0)
    np.testing.assert_array_equal(state.kv[:, :, 8:], 0.0)
    np.testing.assert_array_equal(state.k[:, :, 8:], 0.0)


# ---- against the recurrence ----


def read_by_tokens(pair, values, slopes):
    """The recurrence, one token after the other."""

    def step(sums, inputs):
        query, key, value = inputs
        fade = jnp.exp(-slopes)[None, :, None]
        kv = sums[0] * fade[..., None] + key[..., None] * value[:, :, None]
        k = sums[1] * fade + key
        top = jnp.einsum("bnh,bnhe->bne", query, kv)
        return (kv, k), top / (query * k).sum(axis=-1, keepdims=True)

    batch, _, heads, size = values.shape
    start = jnp.zeros((batch, heads, size, size)), jnp.zeros((batch, heads, size))
    moved = [jnp.moveaxis(x, 1, 0) for x in (*pair, values)]
    return jnp.moveaxis(jax.lax.scan(step, start, moved)[1], 0, 1)


def test_chunks_equal_the_recurrence():
    query, key, values, slopes, _ = decaying((0.5, 2.0**-8))
    query, key, values, slopes = (
        jnp.asarray(x, jnp.float32) for x in (query, key, values, slopes)
    )
    got, _ = jax.jit(read)(Pair(query, key), None, values, slopes)
    wanted = jax.jit(read_by_tokens)(Pair(query, key), values, slopes)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_chunks_need_a_third_of_the_recurrence_s_memory():
    shape = (1, 2048, 4, 64)
    slopes = jnp.asarray([0.25, 2.0**-4, 2.0**-6, 2.0**-8])

    def memory(function):
        def loss(query, key, values):
            return jnp.square(function(Pair(query, key), values)).sum()

        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32)] * 3
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    chunks = memory(lambda pair, values: read(pair, None, values, slopes)[0])
    tokens = memory(lambda pair, values: read_by_tokens(pair, values, slopes))
    assert 3 * chunks < tokens
