import dataclasses
import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import arch.model
from arch import ArchitectureConfig, build_model, init_states
from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS
from arch.families import FAMILIES
from arch.initial import draw_parameters
from arch.traits import traits_of

VOCAB = 23
TINY = ArchitectureConfig(
    arch_type="transformer",
    num_layers=2,
    hidden_dim=24,
    num_heads=3,
    ffn_multiplier=1.5,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=VOCAB,
)
ALL = list(itertools.product(NORMALIZATIONS, ACTIVATIONS, POSITION_ENCODINGS))
FEW = list(itertools.product(NORMALIZATIONS, POSITION_ENCODINGS))


def variant(norm="rmsnorm", activation="swiglu", position="rope", **changes):
    return dataclasses.replace(
        TINY,
        normalization=norm,
        activation=activation,
        position_encoding=position,
        **changes,
    )


def tokens_of(batch, length, seed=0):
    drawn = np.random.default_rng(seed).integers(0, VOCAB, (batch, length))
    return jnp.asarray(drawn, jnp.int32)


def weights_of(config, seed=0):
    """Weights large enough for every part of the model to matter."""
    rng = np.random.default_rng(seed)
    drawn = draw_parameters(build_model(config), jax.random.key(seed))

    def enlarge(path, leaf):
        if path[-1].key == "scale":
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if path[0].key == "blocks":
            return 2 * leaf
        return leaf / leaf.std()  # embedding and head

    return jax.tree_util.tree_map_with_path(enlarge, drawn)


@functools.lru_cache(maxsize=8)  # the config's last uses share its program
def reader(config, dtype=jnp.float32):
    model = build_model(config, dtype)
    return jax.jit(lambda params, tokens: model.apply({"params": params}, tokens))


@functools.lru_cache(maxsize=8)
def extender(config):
    model = build_model(config)
    return jax.jit(
        lambda params, tokens, states: model.apply(
            {"params": params}, tokens, states, method="extend"
        )
    )


# ---- the whole forward pass, written again ----


def norm(name, x, scale):
    groups = {"layernorm": 1, "rmsnorm": 1, "groupnorm": 8}[name]
    parts = x.reshape(*x.shape[:-1], groups, -1)
    if name != "rmsnorm":
        parts = parts - parts.mean(axis=-1, keepdims=True)
    parts = parts / np.sqrt((parts**2).mean(axis=-1, keepdims=True) + 1e-5)
    return parts.reshape(x.shape) * scale


def rotated(x):
    """[B, T, N, H], each pair of channels a complex number."""
    length, size = x.shape[1], x.shape[-1]
    turns = np.exp(
        1j
        * np.outer(np.arange(length), 10000.0 ** (-np.arange(0, size, 2) / size))
    )
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turns[None, :, None]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def attention(config, x, weights):
    q, k, v = (
        np.einsum("btd,dnh->btnh", x, weights[name]["kernel"])
        for name in ("query", "key", "value")
    )
    if config.position_encoding == "rope":
        q, k = rotated(q), rotated(k)
    mixed = np.zeros_like(v)
    slopes = {3: (2.0**-4, 2.0**-8, 2.0**-2)}[config.num_heads]  # ALiBi's
    for t, head in itertools.product(range(x.shape[1]), range(config.num_heads)):
        scores = np.einsum("bh,bsh->bs", q[:, t, head], k[:, : t + 1, head])
        scores = scores / math.sqrt(config.hidden_dim / config.num_heads)
        if config.position_encoding == "alibi":
            scores = scores - slopes[head] * np.arange(t, -1, -1)
        weight = special.softmax(scores, axis=-1)
        mixed[:, t, head] = np.einsum("bs,bsh->bh", weight, v[:, : t + 1, head])
    return np.einsum("btnh,nhd->btd", mixed, weights["out"]["kernel"])


def feedforward(config, x, weights):
    up = x @ weights["up"]["kernel"]
    gate = x @ weights["gate"]["kernel"] if "gate" in weights else up
    inner = {
        "gelu": special.ndtr(gate) * gate,
        "silu": special.expit(gate) * gate,
        "geglu": special.ndtr(gate) * gate * up,
        "swiglu": special.expit(gate) * gate * up,
    }[config.activation]
    return inner @ weights["down"]["kernel"]


def logits_by_hand(config, params, tokens):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    table, width = params["embed"]["embedding"], config.hidden_dim
    x = table[np.asarray(tokens)]
    if config.position_encoding == "absolute":
        pair = np.arange(width) // 2 * 2
        angle = np.arange(x.shape[1])[:, None] / 10000.0 ** (pair / width)
        sines = np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle))
        x = x + 0.1 * (0.02 if config.tie_embeddings else 1.0) * sines
    for layer in range(config.num_layers):
        block = jax.tree.map(lambda leaf, at=layer: leaf[at], params["blocks"])
        y = norm(config.normalization, x, block["mixer_norm"]["scale"])
        x = x + attention(config, y, block["mixer"])
        y = norm(config.normalization, x, block["feedforward_norm"]["scale"])
        x = x + feedforward(config, y, block["feedforward"])
    x = norm(config.normalization, x, params["norm"]["scale"])
    return x @ (table.T if config.tie_embeddings else params["head"]["kernel"])


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
def test_logits_are_those_of_the_formulas(norm, activation, position):
    config = variant(norm, activation, position)
    params, tokens = weights_of(config), tokens_of(2, 7)
    got = reader(config)(params, tokens)
    chex.assert_shape(got, (2, 7, VOCAB))
    wanted = logits_by_hand(config, params, tokens)
    assert wanted.std() > 1
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("position", POSITION_ENCODINGS)
def test_tied_embeddings_are_the_head(position):
    config = variant(position=position, tie_embeddings=True)
    params, tokens = weights_of(config), tokens_of(2, 7)
    assert set(params) == {"embed", "blocks", "norm"}
    wanted = logits_by_hand(config, params, tokens)
    np.testing.assert_allclose(reader(config)(params, tokens), wanted, atol=2e-4)


def test_an_explicit_ffn_dim_is_the_inner_width():
    config = variant(ffn_dim=17)
    params, tokens = weights_of(config), tokens_of(1, 5)
    assert params["blocks"]["feedforward"]["up"]["kernel"].shape == (2, 24, 17)
    wanted = logits_by_hand(config, params, tokens)
    np.testing.assert_allclose(reader(config)(params, tokens), wanted, atol=1e-4)


def test_a_deep_stack_is_a_loop_and_computes_the_same(monkeypatch):
    config = variant(num_layers=8)
    params, tokens = weights_of(config), tokens_of(2, 6)
    params["blocks"] = jax.tree.map(lambda leaf: leaf / 2, params["blocks"])

    def read(params, tokens):
        return build_model(config).apply({"params": params}, tokens)

    def unrolled():
        equations = jax.make_jaxpr(read)(params, tokens).eqns
        return [e.params["unroll"] for e in equations if e.primitive.name == "scan"]

    assert unrolled() == [1]
    loop = jax.jit(read)(params, tokens)
    monkeypatch.setattr(arch.model, "UNROLLED_LAYERS", 8)
    jax.clear_caches()
    assert unrolled() == [8]
    np.testing.assert_allclose(jax.jit(read)(params, tokens), loop, atol=2e-5)
    np.testing.assert_allclose(loop, logits_by_hand(config, params, tokens), atol=2e-4)


# ---- causality ----


@pytest.mark.parametrize(("norm", "position"), FEW)
def test_no_token_is_seen_before_its_turn(norm, position):
    # Each position reads a token of its own, so that the gradient for a row of
    # the embedding is the gradient for that position's input.
    config, length = variant(norm, position=position), 6
    params = weights_of(config)
    model, tokens = build_model(config), jnp.arange(length)[None]
    direction = np.random.default_rng(0).normal(size=VOCAB).astype(np.float32)

    def outputs(table):
        embedded = {**params, "embed": {"embedding": table}}
        return model.apply({"params": embedded}, tokens)[0] @ direction

    slopes = jax.jit(jax.jacrev(outputs))(jnp.asarray(params["embed"]["embedding"]))
    seen = np.asarray(slopes != 0).any(axis=-1)[:, :length]
    np.testing.assert_array_equal(seen, np.tri(length, dtype=bool))


# ---- reading in parts ----


def read_in_parts(config, params, tokens, lengths):
    states = init_states(config, len(tokens), capacity=tokens.shape[1] + 2)
    parts = np.split(np.asarray(tokens), np.cumsum(lengths)[:-1], axis=1)
    logits = []
    for part in parts:
        some, states = extender(config)(params, jnp.asarray(part), states)
        logits.append(some)
    return jnp.concatenate(logits, axis=1), states


@pytest.mark.parametrize("lengths", [(9,), (1, 8), (4, 5), (8, 1), (2, 3, 4)])
@pytest.mark.parametrize("position", POSITION_ENCODINGS)
def test_reading_in_parts_equals_reading_at_once(position, lengths):
    config = variant(position=position)
    params, tokens = weights_of(config), tokens_of(3, 9)
    whole = reader(config)(params, tokens)
    parts, (_, read) = read_in_parts(config, params, tokens, lengths)
    np.testing.assert_allclose(parts, whole, atol=5e-5)
    assert read.tolist() == [9, 9, 9]


@pytest.mark.parametrize("position", POSITION_ENCODINGS)
def test_one_token_at_a_time_compiles_once(position):
    config = variant(position=position)
    params, tokens = weights_of(config), tokens_of(2, 8)
    model, whole = build_model(config), reader(config)(params, tokens)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def read_one(params, token, states):
        return model.apply({"params": params}, token, states, method="extend")

    states = init_states(config, batch=2, capacity=8)
    for at in range(8):
        logits, states = read_one(params, tokens[:, at : at + 1], states)
        np.testing.assert_allclose(logits[:, 0], whole[:, at], atol=5e-5)


@pytest.mark.parametrize("position", POSITION_ENCODINGS)
def test_rows_that_have_read_different_lengths_go_on_side_by_side(position):
    config = variant(position=position)
    params, tokens = weights_of(config), tokens_of(3, 9)
    starts, states = (2, 5, 4), []
    for row, start in enumerate(starts):
        empty = init_states(config, batch=1, capacity=9)
        first = tokens[row : row + 1, :start]
        states.append(extender(config)(params, first, empty)[1])
    blocks = [blocks for blocks, _ in states]
    together = (
        jax.tree.map(lambda *rows: jnp.concatenate(rows, axis=1), *blocks),
        jnp.concatenate([read for _, read in states]),
    )
    then = [tokens[row, start : start + 4] for row, start in enumerate(starts)]
    got, (_, read) = extender(config)(params, jnp.stack(then), together)
    whole = reader(config)(params, tokens)
    for row, start in enumerate(starts):
        wanted = whole[row, start : start + 4]
        np.testing.assert_allclose(got[row], wanted, atol=5e-5)
    assert read.tolist() == [6, 9, 8]


# ---- traits as data ----


@functools.cache
def reader_with_traits(gated):
    model = build_model(variant(activation="swiglu" if gated else "gelu"))
    return jax.jit(
        lambda params, tokens, traits: model.apply({"params": params}, tokens, traits)
    )


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
def test_traits_as_arrays_compute_what_constants_compute(norm, activation, position):
    config = variant(norm, activation, position)
    params, tokens = weights_of(config), tokens_of(2, 7)
    data = jax.tree.map(jnp.asarray, traits_of(config))
    got = reader_with_traits(config.gated)(params, tokens, data)
    # Compare with the formulas too: the constants are checked against them.
    wanted = logits_by_hand(config, params, tokens)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    np.testing.assert_allclose(got, reader(config)(params, tokens), atol=2e-5)


@pytest.mark.parametrize("gated", [False, True])
def test_all_norms_activations_and_positions_share_one_program(gated):
    compiled = reader_with_traits(gated)
    compiled.clear_cache()
    for norm, activation, position in ALL:
        config = variant(norm, activation, position)
        if config.gated == gated:
            data = jax.tree.map(jnp.asarray, traits_of(config))
            compiled(weights_of(config), tokens_of(2, 7), data)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
def test_constants_leave_no_branch_and_no_foreign_position(norm, activation, position):
    config = variant(norm, activation, position)
    params, tokens = weights_of(config), tokens_of(2, 7)
    text = str(jax.make_jaxpr(reader(config))(params, tokens))
    assert "cond[" not in text
    assert ("erf" in text) == (activation in ("gelu", "geglu"))
    assert (" sin " in text) == (position != "alibi")
    data = jax.tree.map(jnp.asarray, traits_of(config))
    read = reader_with_traits(config.gated)
    assert "cond[" in str(jax.make_jaxpr(read)(params, tokens, data))


# ---- precision ----


@pytest.mark.parametrize("norm", NORMALIZATIONS)
@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_is_near_float32_and_gives_float32_logits(norm, tied):
    config = variant(norm, tie_embeddings=tied)
    params, tokens = weights_of(config), tokens_of(4, 16)
    exact = reader(config)(params, tokens)
    rough = reader(config, jnp.bfloat16)(params, tokens)
    assert exact.dtype == rough.dtype == jnp.float32
    error = float(jnp.abs(rough - exact).mean() / jnp.abs(exact).mean())
    assert 1e-5 < error < 0.03


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("position", POSITION_ENCODINGS)
def test_gradients_are_finite_and_reach_every_weight(dtype, position, key):
    config = variant(position=position, attention_dropout=0.1, residual_dropout=0.1)
    model, tokens = build_model(config, dtype), tokens_of(4, 16)
    # Rows of zeros, as zero padding and dropout make them, must not make NaN.
    params = weights_of(config)
    params["embed"]["embedding"][3] = 0
    tokens = tokens.at[:, 0].set(3)

    def loss(params):
        logits = model.apply({"params": params}, tokens, dropout_key=key)
        return -jax.nn.log_softmax(logits)[..., 0].mean()

    grads = jax.jit(jax.grad(loss))(params)
    chex.assert_tree_all_finite(grads)
    for grad, weight in zip(*map(jax.tree.leaves, (grads, params)), strict=True):
        assert grad.dtype == weight.dtype == jnp.float32
        assert jnp.any(grad != 0)


# ---- dropout ----

DROPPING = variant("rmsnorm", "gelu", "alibi", vocab_size=24, residual_dropout=0.5)


def dropping_reader(config):
    model = build_model(config)
    return jax.jit(
        lambda params, tokens, key: model.apply(
            {"params": params}, tokens, dropout_key=key
        )
    )


def test_without_a_key_nothing_is_dropped(key):
    config = dataclasses.replace(DROPPING, vocab_size=VOCAB, attention_dropout=0.5)
    params, tokens = weights_of(config), tokens_of(2, 7)
    read = dropping_reader(config)
    plain = reader(config)(params, tokens)
    np.testing.assert_array_equal(read(params, tokens, None), plain)
    np.testing.assert_allclose(plain, logits_by_hand(config, params, tokens), atol=1e-4)
    first = read(params, tokens, key)
    assert jnp.abs(first - plain).max() > 0.1
    np.testing.assert_array_equal(read(params, tokens, jax.random.clone(key)), first)
    zero = dataclasses.replace(config, attention_dropout=0.0, residual_dropout=0.0)
    unchanged = dropping_reader(zero)(params, tokens, jax.random.clone(key))
    np.testing.assert_array_equal(unchanged, reader(zero)(params, tokens))


def test_dropout_differs_between_keys_layers_and_sublayers(key):
    # One sub-layer at a time writes to the stream, far more than was there, and
    # the head shows the stream: the small logits are the dropped channels.
    params, tokens = weights_of(DROPPING), tokens_of(8, 32)
    params["head"]["kernel"] = np.eye(24, dtype=np.float32)
    params["norm"]["scale"][:] = 1
    read, keys = dropping_reader(DROPPING), jax.random.split(key, 3)
    masks = []
    for layer, (part, matrix) in itertools.product(
        range(2), [("mixer", "out"), ("feedforward", "down")]
    ):
        alone = jax.tree.map(np.copy, params)
        for other, name in [("mixer", "out"), ("feedforward", "down")]:
            alone["blocks"][other][name]["kernel"][:] = 0
        kernel = params["blocks"][part][matrix]["kernel"][layer]
        alone["blocks"][part][matrix]["kernel"][layer] = 1e6 * kernel
        for one in keys:
            logits = read(alone, tokens, jax.random.clone(one))
            masks.append(np.abs(np.asarray(logits)).ravel() < 1e-4)
    masks = np.stack(masks)
    samples = masks.shape[1]
    assert np.abs(masks.mean(axis=1) - 0.5).max() < 5 * 0.5 / math.sqrt(samples)
    signs = 1.0 - 2.0 * masks
    between = (signs @ signs.T)[np.triu_indices(len(masks), 1)]
    assert np.abs(between).max() < 5 * math.sqrt(samples)


def test_attention_dropout_drops_probabilities(key):
    # The first token attends to itself alone: a head's whole output is dropped
    # or doubled.
    config = variant("rmsnorm", "gelu", "alibi", vocab_size=24, attention_dropout=0.5)
    config = dataclasses.replace(config, num_layers=1)
    params = weights_of(config)
    params["head"]["kernel"] = np.eye(24, dtype=np.float32)
    params["norm"]["scale"][:] = 1
    params["blocks"]["feedforward"]["down"]["kernel"][:] = 0
    out = 1e6 * np.eye(24, dtype=np.float32).reshape(1, 3, 8, 24)
    params["blocks"]["mixer"]["out"]["kernel"] = out
    logits = dropping_reader(config)(params, tokens_of(600, 1), key)
    gone = (np.abs(np.asarray(logits)) < 1e-4).reshape(600, 3, 8)
    # A head that is alone in being kept, or all heads dropped, shows otherwise.
    dropped = gone.all(axis=-1)
    all_dropped = ~(np.abs(np.asarray(logits)) < 1e-4).any(axis=(1, 2))
    some = dropped[~all_dropped]
    np.testing.assert_array_equal(
        gone.reshape(600, 3, 8)[~all_dropped], np.repeat(some[..., None], 8, axis=-1)
    )


# ---- families ----


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"transformer"}))
def test_a_family_without_modules_is_named(family):
    config = dataclasses.replace(TINY, arch_type=family)
    message = f"arch_type='{family}' .* can build transformer; missing .*{family}"
    for build in (build_model, lambda c: init_states(c, batch=1, capacity=4)):
        with pytest.raises(ValueError, match=message):
            build(config)
