import dataclasses
import functools
import itertools
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import arch.model
from arch import ArchitectureConfig, build_model, init_states
from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS
from arch.initial import draw_parameters
from arch.traits import traits_of

VOCAB = 23
TINY = ArchitectureConfig(
    arch_type="transformer",
    num_layers=2,
    hidden_dim=48,
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
        # Logits of a deviation near 1, tied or not.
        return leaf / leaf.std() / math.sqrt(config.hidden_dim)

    return jax.tree_util.tree_map_with_path(enlarge, drawn)


def read(config, params, tokens, dtype=jnp.float32, **arguments):
    """The model op by op: many configs, and no program compiled for each."""
    with jax.disable_jit():
        model = build_model(config, dtype)
        return model.apply({"params": params}, tokens, **arguments)


@pytest.fixture
def looped(monkeypatch):
    """The layers as a loop, which compiles faster."""
    monkeypatch.setattr(arch.model, "UNROLLED_LAYERS", 0)


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
        1j * np.outer(np.arange(length), 10000.0 ** (-np.arange(0, size, 2) / size))
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
        "relu2": np.maximum(gate, 0) ** 2,
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
@pytest.mark.sweep(5)
def test_logits_are_those_of_the_formulas(norm, activation, position):
    config = variant(norm, activation, position)
    params, tokens = weights_of(config), tokens_of(3, 9)
    got = read(config, params, tokens)
    chex.assert_shape(got, (3, 9, VOCAB))
    wanted = logits_by_hand(config, params, tokens)
    assert wanted.std() > 0.5
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("position", POSITION_ENCODINGS)
def test_tied_embeddings_are_the_head(position):
    config = variant(position=position, tie_embeddings=True)
    params, tokens = weights_of(config), tokens_of(3, 9)
    assert set(params) == {"embed", "blocks", "norm"}
    wanted = logits_by_hand(config, params, tokens)
    np.testing.assert_allclose(read(config, params, tokens), wanted, atol=1e-4)


def test_an_explicit_ffn_dim_is_the_inner_width():
    config = variant(ffn_dim=17)
    params, tokens = weights_of(config), tokens_of(3, 9)
    assert params["blocks"]["feedforward"]["up"]["kernel"].shape == (2, 48, 17)
    wanted = logits_by_hand(config, params, tokens)
    np.testing.assert_allclose(read(config, params, tokens), wanted, atol=1e-4)


def test_a_deep_stack_is_a_loop_and_computes_the_same(monkeypatch):
    config = variant(num_layers=8)
    params, tokens = weights_of(config), tokens_of(2, 6)

    def run(params, tokens):
        return build_model(config).apply({"params": params}, tokens)

    def unrolled():
        equations = jax.make_jaxpr(run)(params, tokens).eqns
        return [e.params["unroll"] for e in equations if e.primitive.name == "scan"]

    assert unrolled() == [1]
    loop = jax.jit(run)(params, tokens)
    monkeypatch.setattr(arch.model, "UNROLLED_LAYERS", 8)
    jax.clear_caches()
    assert unrolled() == [8]
    np.testing.assert_allclose(jax.jit(run)(params, tokens), loop, atol=2e-5)
    np.testing.assert_allclose(loop, logits_by_hand(config, params, tokens), atol=1e-4)


# ---- causality ----


@functools.cache
def slopes_of_outputs():
    """Jitted: each position's output by the rows of the embedding."""
    model, length = build_model(TINY), 6
    direction = np.random.default_rng(0).normal(size=VOCAB).astype(np.float32)

    def outputs(table, params, traits):
        # Each position reads a token of its own, so that the gradient for a row
        # of the embedding is the gradient for that position's input.
        params = {**params, "embed": {"embedding": table}}
        tokens = jnp.arange(length)[None]
        return model.apply({"params": params}, tokens, traits)[0] @ direction

    return jax.jit(jax.jacrev(outputs))


@pytest.mark.usefixtures("looped")
@pytest.mark.parametrize(("norm", "position"), FEW)
@pytest.mark.sweep(4)
def test_no_token_is_seen_before_its_turn(norm, position):
    config = variant(norm, position=position)
    params = weights_of(config)
    traits = jax.tree.map(jnp.asarray, traits_of(config))
    table = jnp.asarray(params["embed"]["embedding"])
    slopes = slopes_of_outputs()(table, params, traits)
    seen = np.asarray(slopes != 0).any(axis=-1)
    assert not seen[:, 6:].any()
    np.testing.assert_array_equal(seen[:, :6], np.tri(6, dtype=bool))


# ---- reading in parts ----


def extend(config, params, tokens, states):
    with jax.disable_jit():
        model = build_model(config)
        return model.apply({"params": params}, tokens, states, method="extend")


@pytest.mark.parametrize("lengths", [(9,), (1, 8), (8, 1), (3, 3, 3)])
@pytest.mark.parametrize("position", POSITION_ENCODINGS)
@pytest.mark.sweep(5)
def test_reading_in_parts_equals_reading_at_once(position, lengths):
    config = variant(position=position)
    params, tokens = weights_of(config), tokens_of(3, 9)
    states, parts = init_states(config, batch=3, capacity=11), []
    for part in np.split(np.asarray(tokens), np.cumsum(lengths)[:-1], axis=1):
        logits, states = extend(config, params, jnp.asarray(part), states)
        parts.append(logits)
    whole = read(config, params, tokens)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=2e-5)
    assert states[1].tolist() == [9, 9, 9]


@pytest.mark.parametrize("position", POSITION_ENCODINGS)
@pytest.mark.sweep(3)
def test_one_token_at_a_time_compiles_once(position):
    config = variant(position=position)
    params, tokens = weights_of(config), tokens_of(2, 8)
    model, whole = build_model(config), read(config, params, tokens)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def read_one(params, token, states):
        return model.apply({"params": params}, token, states, method="extend")

    states = init_states(config, batch=2, capacity=8)
    for at in range(8):
        logits, states = read_one(params, tokens[:, at : at + 1], states)
        np.testing.assert_allclose(logits[:, 0], whole[:, at], atol=2e-5)


@pytest.mark.parametrize("position", POSITION_ENCODINGS)
@pytest.mark.sweep(3)
def test_rows_that_have_read_different_lengths_go_on_side_by_side(position):
    config = variant(position=position)
    params, tokens = weights_of(config), tokens_of(3, 9)
    starts, states = (1, 5, 3), []
    for row, start in enumerate(starts):
        state = init_states(config, batch=1, capacity=11)
        for at in range(start):
            one = tokens[row : row + 1, at : at + 1]
            _, state = extend(config, params, one, state)
        states.append(state)
    blocks = [blocks for blocks, _ in states]
    together = (
        jax.tree.map(lambda *rows: jnp.concatenate(rows, axis=1), *blocks),
        jnp.concatenate([count for _, count in states]),
    )
    then = [tokens[row, start : start + 3] for row, start in enumerate(starts)]
    got, (_, counts) = extend(config, params, jnp.stack(then), together)
    whole = read(config, params, tokens)
    for row, start in enumerate(starts):
        wanted = whole[row, start : start + 3]
        np.testing.assert_allclose(got[row], wanted, atol=2e-5)
    assert counts.tolist() == [4, 8, 6]


# ---- traits as data ----


@functools.cache
def reader_with_traits(gated):
    """The compiled model, and a list that grows with each tracing."""
    model, traced = build_model(variant(activation="swiglu" if gated else "gelu")), []

    def run(params, tokens, traits):
        traced.append(None)
        return model.apply({"params": params}, tokens, traits)

    return jax.jit(run), traced


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
@pytest.mark.usefixtures("looped")
@pytest.mark.sweep(5)
def test_traits_as_arrays_compute_what_constants_compute(norm, activation, position):
    config = variant(norm, activation, position)
    params, tokens = weights_of(config), tokens_of(3, 9)
    data = jax.tree.map(jnp.asarray, traits_of(config))
    run, traced = reader_with_traits(config.gated)
    got = run(params, tokens, data)
    np.testing.assert_allclose(got, read(config, params, tokens), atol=5e-5)
    np.testing.assert_allclose(got, logits_by_hand(config, params, tokens), atol=1e-4)
    assert len(traced) == 1  # one program for them all


@pytest.mark.parametrize("norm", NORMALIZATIONS)
def test_the_compiled_constants_compute_what_the_ops_compute(norm):
    config = variant(norm)
    params, tokens = weights_of(config), tokens_of(3, 9)
    model = build_model(config)
    got = jax.jit(lambda params: model.apply({"params": params}, tokens))(params)
    np.testing.assert_allclose(got, read(config, params, tokens), atol=5e-5)


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
@pytest.mark.sweep(5)
def test_constants_leave_no_branch_and_no_foreign_formula(norm, activation, position):
    config = variant(norm, activation, position)
    params = weights_of(config)
    model, tokens = build_model(config), tokens_of(3, 9)

    def run(params, traits=None):
        return model.apply({"params": params}, tokens, traits)

    text = str(jax.make_jaxpr(run)(params))
    assert "cond[" not in text
    assert ("erf" in text) == (activation in ("gelu", "geglu"))
    assert ("= sin " in text) == (position != "alibi")
    data = jax.tree.map(jnp.asarray, traits_of(config))
    text = str(jax.make_jaxpr(run)(params, data))
    assert "cond[" in text
    assert "erf" in text
    assert "= sin " in text


# ---- precision ----


@pytest.mark.parametrize(
    ("norm", "tied"), [("layernorm", False), ("rmsnorm", True), ("groupnorm", False)]
)
@pytest.mark.sweep(3)
def test_bfloat16_is_near_float32_and_gives_float32_logits(norm, tied):
    config = variant(norm, tie_embeddings=tied)
    params, tokens = weights_of(config), tokens_of(3, 9)
    exact = read(config, params, tokens)
    rough = read(config, params, tokens, jnp.bfloat16)
    assert exact.dtype == rough.dtype == jnp.float32
    error = float(jnp.abs(rough - exact).mean() / jnp.abs(exact).mean())
    assert 1e-3 < error < 0.04
    # Summed in float32: most logits have digits that bfloat16 does not.
    rounded = rough.astype(jnp.bfloat16).astype(jnp.float32)
    assert float((rounded != rough).mean()) > 0.9


@pytest.mark.usefixtures("looped")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.sweep(2)
def test_gradients_are_finite_and_reach_every_weight(dtype, key):
    config = variant(attention_dropout=0.1, residual_dropout=0.1)
    model, params = build_model(config, dtype), weights_of(config)
    # A token of zeros, as zero padding and dropout make them.
    params["embed"]["embedding"][3] = 0
    tokens = tokens_of(4, 16).at[:, 0].set(3)

    @jax.jit
    @jax.grad
    def slopes(params, traits):
        logits = model.apply({"params": params}, tokens, traits, key)
        return -jax.nn.log_softmax(logits)[..., 0].mean()

    for norm, activation, position in ALL:
        traits = traits_of(variant(norm, activation, position))
        grads = slopes(params, jax.tree.map(jnp.asarray, traits))
        chex.assert_tree_all_finite(grads)
        for path, grad in jax.tree_util.tree_flatten_with_path(grads)[0]:
            assert grad.dtype == jnp.float32
            idle = path[-2].key == "gate" and activation in ("gelu", "silu", "relu2")
            assert bool(jnp.any(grad != 0)) != idle


# ---- dropout ----

DROPPING = variant("rmsnorm", "gelu", "alibi", vocab_size=48, residual_dropout=0.5)


def test_without_a_key_nothing_is_dropped(key):
    config = dataclasses.replace(DROPPING, attention_dropout=0.5)
    params, tokens = weights_of(config), tokens_of(3, 9)
    plain = read(config, params, tokens)
    np.testing.assert_allclose(plain, logits_by_hand(config, params, tokens), atol=1e-4)
    first = read(config, params, tokens, dropout_key=key)
    assert jnp.abs(first - plain).max() > 0.1
    again = read(config, params, tokens, dropout_key=jax.random.clone(key))
    np.testing.assert_array_equal(again, first)
    zero = dataclasses.replace(config, attention_dropout=0.0, residual_dropout=0.0)
    kept = read(zero, params, tokens, dropout_key=jax.random.clone(key))
    np.testing.assert_array_equal(kept, plain)


def showing_the_stream(config):
    """Weights whose logits are the normalised residual stream itself."""
    params = weights_of(config)
    params["head"]["kernel"] = np.eye(48, dtype=np.float32)
    params["norm"]["scale"][:] = 1
    return params


def test_dropout_differs_between_keys_layers_and_sublayers(key):
    # One sub-layer at a time writes to the stream, far more than was there: the
    # small logits are the dropped channels.
    params, tokens = showing_the_stream(DROPPING), tokens_of(8, 32)
    writing, masks = [("mixer", "out"), ("feedforward", "down")], []
    keys = jax.random.split(key, 3)
    model = build_model(DROPPING)

    @jax.jit
    def run(params, key):
        return model.apply({"params": params}, tokens, dropout_key=key)

    for layer, (part, matrix) in itertools.product(range(2), writing):
        alone = jax.tree.map(np.copy, params)
        for other, name in writing:
            alone["blocks"][other][name]["kernel"][:] = 0
        kernel = params["blocks"][part][matrix]["kernel"][layer]
        alone["blocks"][part][matrix]["kernel"][layer] = 1e6 * kernel
        for one in keys:
            logits = run(alone, jax.random.clone(one))
            masks.append(np.abs(np.asarray(logits)).ravel() < 1e-4)
    samples = masks[0].size
    for mask in masks:
        assert abs(mask.mean() - 0.5) < 2.5 / math.sqrt(samples)
    signs = 1.0 - 2.0 * np.stack(masks)
    between = (signs @ signs.T)[np.triu_indices(len(masks), 1)]
    assert np.abs(between).max() < 5 * math.sqrt(samples)


def test_attention_dropout_drops_probabilities(key):
    # The first token attends to itself alone, so that each head's output is
    # dropped or kept as a whole.
    config = variant("rmsnorm", "gelu", "alibi", vocab_size=48, attention_dropout=0.5)
    config = dataclasses.replace(config, num_layers=1)
    params = showing_the_stream(config)
    params["blocks"]["feedforward"]["down"]["kernel"][:] = 0
    out = 1e6 * np.eye(48, dtype=np.float32).reshape(1, 3, 16, 48)
    params["blocks"]["mixer"]["out"]["kernel"] = out
    batch = 2000
    logits = read(config, params, tokens_of(batch, 1), dropout_key=key)
    gone = np.abs(np.asarray(logits)).reshape(batch, 3, 16) < 1e-4
    np.testing.assert_array_equal(gone.all(axis=-1), gone.any(axis=-1))
    patterns = gone.all(axis=-1) @ [1, 2, 4]
    # With all three dropped the small stream below is scaled up: as with none.
    for pattern, chance in enumerate([2 / 8, *[1 / 8] * 6, 0]):
        expected, spread = batch * chance, math.sqrt(batch * chance)
        assert abs((patterns == pattern).sum() - expected) <= 5 * spread


@pytest.mark.parametrize("unrolled", [False, True])
def test_no_class_is_made_while_a_model_is_traced(monkeypatch, unrolled):
    """Flax changes the base classes for a moment, under other threads' feet."""

    def refuse(cls, **options):
        raise AssertionError(f"{cls} is made")

    monkeypatch.setattr(nn.Module, "__init_subclass__", classmethod(refuse))
    model = build_model(TINY, unrolled=unrolled)
    tokens = jnp.zeros((1, 4), jnp.int32)
    jax.eval_shape(model.init, jax.random.key(0), tokens)
