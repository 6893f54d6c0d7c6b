"""The contract of every mixer, in its block, with every norm and position.

A family's norms and positions are data here: one program serves them all.
"""

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import ArchitectureConfig, build_model, init_states
from arch.block import Block, sublayers_of
from arch.config import NORMALIZATIONS, POSITION_ENCODINGS
from arch.cost import parameters
from arch.families import FAMILIES, USES
from arch.initial import draw_parameters
from arch.mixers import MIXERS
from arch.traits import traits_of

ROWS, TOKENS, HALF = 3, 150, 75  # more than any chunk or block of a mixer
BASE = ArchitectureConfig(
    arch_type="transformer",
    num_layers=1,
    hidden_dim=32,
    num_heads=4,
    ffn_multiplier=1.5,
    normalization="layernorm",
    activation="gelu",
    position_encoding="absolute",
    vocab_size=13,
)


def variants(family):
    """The family with every norm and position encoding that it has."""
    choices = {"normalization": NORMALIZATIONS, "position_encoding": POSITION_ENCODINGS}
    own = {name: all_ for name, all_ in choices.items() if name in USES[family]}
    return [
        dataclasses.replace(
            BASE, arch_type=family, **dict(zip(own, values, strict=True))
        )
        for values in itertools.product(*own.values())
    ]


EVERY = [config for family in FAMILIES for config in variants(family)]


def name_of(config):
    used = USES[config.arch_type]
    fields = ("arch_type", "normalization", "position_encoding")
    return "-".join(getattr(config, name) for name in fields if name in used)


every = pytest.mark.parametrize("config", EVERY, ids=name_of)


def test_every_family_has_a_mixer():
    assert tuple(MIXERS) == FAMILIES
    assert len(EVERY) == 4 * 9 + 3 + 1


@functools.cache
def weights_of(family):
    """A block's weights, every tensor away from its initial value."""
    config = dataclasses.replace(BASE, arch_type=family)
    drawn = draw_parameters(build_model(config), jax.random.key(0))["blocks"]
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: leaf[0] + rng.normal(0, 0.1, leaf.shape[1:]).astype(np.float32),
        drawn,
    )


@functools.cache
def inputs():
    return np.random.default_rng(2).normal(size=(ROWS, TOKENS, 32)).astype(np.float32)


def as_data(config):
    return jax.tree.map(jnp.asarray, traits_of(config))


def empty(config, dtype=jnp.float32):
    return {
        name: layer.init_state(config, ROWS, TOKENS, dtype)
        for name, layer in sublayers_of(config.arch_type).items()
    }


@functools.cache
def reader(family, dtype=jnp.float32):
    """jit of (weights, x, state, traits, lengths) -> (y, state)."""
    block = Block(dataclasses.replace(BASE, arch_type=family), dtype)

    @jax.jit
    def read(weights, x, state, traits, lengths):
        return block.apply({"params": weights}, x, state, traits, None, lengths)

    return read


def read(config, x, state=None, lengths=None):
    family = config.arch_type
    weights = weights_of(family)
    return reader(family)(weights, x, state, as_data(config), lengths)


@every
@pytest.mark.sweep(5)
def test_reading_in_parts_equals_reading_at_once(config):
    whole, nothing = read(config, inputs())
    assert nothing is None
    state, parts = empty(config), []
    for start in (0, HALF):
        part, state = read(config, inputs()[:, start : start + HALF], state)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-4)
    one, _ = read(config, inputs()[:, :1], empty(config))
    np.testing.assert_allclose(one, whole[:, :1], atol=1e-4)


@every
@pytest.mark.sweep(3)
def test_padding_never_enters_the_state(config):
    """Rows of different lengths go on as if each were alone."""
    lengths = np.array([HALF, 1, 40], np.int32)
    real = np.arange(HALF)[None] < lengths[:, None]
    padded = np.where(real[..., None], inputs()[:, :HALF], 9.0).astype(np.float32)
    _, state = read(config, padded, empty(config), lengths)
    following = np.stack([inputs()[r, n : n + HALF] for r, n in enumerate(lengths)])
    got, _ = read(config, following, state, np.full(ROWS, HALF, np.int32))
    whole, _ = read(config, inputs())
    for row, length in enumerate(lengths):
        wanted = whole[row, length : length + HALF]
        np.testing.assert_allclose(got[row], wanted, atol=1e-4)


@every
@pytest.mark.parametrize("at", [0, 70, 149])
def test_causality(config, at):
    before, _ = read(config, inputs())
    changed = inputs().copy()
    changed[:, at] = -changed[:, at, ::-1]
    after, _ = read(config, changed)
    difference = np.abs(np.asarray(after) - np.asarray(before)).max(axis=(0, 2))
    assert difference[:at].max(initial=0) < 1e-6
    assert difference[at] > 1e-3
    if at == 0:  # and what was read is remembered
        assert (difference[1:3] > 1e-4).all()


@functools.cache
def slopes(family, dtype):
    """jit of (weights, x, traits) -> gradients of a loss of every output."""
    block = Block(dataclasses.replace(BASE, arch_type=family), dtype)

    def loss(weights, x, traits):
        y, _ = block.apply({"params": weights}, x.astype(dtype), None, traits)
        return jnp.square(y.astype(jnp.float32)).sum()

    return jax.jit(jax.grad(loss, (0, 1)))


@every
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.sweep(7)
def test_gradients_are_finite_and_reach_every_weight(config, dtype):
    family = config.arch_type
    # Large inputs: what overflows, overflows here.
    x = 20 * inputs()
    found = slopes(family, dtype)(weights_of(family), x, as_data(config))
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert np.asarray(leaf != 0).any(), jax.tree_util.keystr(path)


@every
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.sweep(3)
def test_parameters_are_counted(config, tied):
    config = dataclasses.replace(config, num_layers=3, tie_embeddings=tied)
    tokens = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(build_model(config).init, jax.random.key(0), tokens)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters(config)


@every
@pytest.mark.sweep(3)
def test_traits_as_constants_are_the_traits_as_data(config):
    """In one program and in the other, with a chunk's boundary inside."""
    block, traits = Block(config, jnp.float32), traits_of(config)
    weights = weights_of(config.arch_type)
    x = inputs()[:, :70]
    constant, _ = jax.jit(lambda w, x: block.apply({"params": w}, x, None, traits))(
        weights, x
    )
    data, _ = read(config, inputs())
    np.testing.assert_allclose(constant, data[:, :70], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.sweep(2)
def test_nothing_recompiles_across_decode_steps(family):
    config = dataclasses.replace(BASE, arch_type=family, num_layers=2)
    model = build_model(config)
    params = draw_parameters(model, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 13, (ROWS, 12))
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, token, states):
        return model.apply({"params": params}, token, states, method="extend")

    states = init_states(config, ROWS, 12)
    whole = model.apply({"params": params}, jnp.asarray(tokens))
    for at in range(12):
        logits, states = step(params, tokens[:, at : at + 1], states)
        np.testing.assert_allclose(logits[:, 0], whole[:, at], atol=2e-4)
    assert states.read.tolist() == [12] * ROWS
