"""A small model in the corner of a larger one's zeros stays the small model."""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import arch.model
from arch import ArchitectureConfig, build_model
from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS
from arch.initial import draw_parameters
from arch.padding import pad
from arch.traits import traits_of

VOCAB = 19
SHAPE = ArchitectureConfig(
    arch_type="transformer",
    num_layers=3,
    hidden_dim=48,
    num_heads=2,
    ffn_multiplier=1.0,
    normalization="layernorm",
    activation="geglu",  # with a gate: it holds members without one
    position_encoding="absolute",
    vocab_size=VOCAB,
    ffn_dim=56,
)
MEMBER = dataclasses.replace(SHAPE, num_layers=2, hidden_dim=32, ffn_dim=40)
ALL = list(itertools.product(NORMALIZATIONS, ACTIVATIONS, POSITION_ENCODINGS))


@pytest.fixture(autouse=True)
def _looped_layers(monkeypatch):
    """As a loop the layers compile faster; that it is the same is tested."""
    monkeypatch.setattr(arch.model, "UNROLLED_LAYERS", 0)


def member(norm="rmsnorm", activation="swiglu", position="rope", **changes):
    return dataclasses.replace(
        MEMBER,
        normalization=norm,
        activation=activation,
        position_encoding=position,
        **changes,
    )


def weights_of(config):
    """Random weights, scales too, with logits of a deviation near 1."""
    rng = np.random.default_rng(0)

    def enlarge(path, leaf):
        if path[-1].key == "scale":
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return 8 * leaf if path[0].key == "head" else leaf

    drawn = draw_parameters(build_model(config), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(enlarge, drawn)


def fill(config, params):
    """The shape's parameters: zeros, and the member's in their places."""
    return pad(params, config, SHAPE)


def padding_of(config):
    """bool of the shape's parameters, True where nothing of the member lies."""
    ones = jax.tree.map(np.ones_like, weights_of(config))
    return jax.tree.map(lambda leaf: leaf == 0, fill(config, ones))


def tokens_of(batch=3, length=9):
    drawn = np.random.default_rng(1).integers(0, VOCAB, (batch, length))
    return jnp.asarray(drawn, jnp.int32)


def data_of(config):
    return jax.tree.map(jnp.asarray, traits_of(config))


def alone(config, params, **arguments):
    with jax.disable_jit():
        model = build_model(config)
        return model.apply({"params": params}, tokens_of(), **arguments)


def beside_zeros(params, traits):
    """Logits in the padded shape, op by op."""
    with jax.disable_jit():
        model = build_model(SHAPE)
        return model.apply({"params": params}, tokens_of(), traits)


class Step(NamedTuple):
    loss: jax.Array
    logits: jax.Array
    grads: dict
    params: dict
    moments: optax.OptState


@functools.cache
def trainer(config):
    """One program for all traits: a step of AdamW, and its moments at first."""
    model = build_model(config)
    optimizer = optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(0.01, weight_decay=0.1)
    )

    def loss_of(params, traits, key):
        logits = model.apply({"params": params}, tokens_of(), traits, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits[:, :-1], tokens_of()[:, 1:]
        )
        return losses.mean(), logits

    def step(params, moments, traits, key):
        differentiate = jax.value_and_grad(loss_of, has_aux=True)
        (loss, logits), grads = differentiate(params, traits, key)
        updates, moments = optimizer.update(grads, moments, params)
        params = optax.apply_updates(params, updates)
        return Step(loss, logits, grads, params, moments)

    return jax.jit(step), optimizer.init


def first_step(config, key):
    """The first step of a member, padded into the shape."""
    step, init = trainer(SHAPE)
    params = fill(config, weights_of(config))
    return step(params, init(params), data_of(config), key)


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
@pytest.mark.sweep(5)
def test_a_padded_model_computes_what_it_computes_alone(
    norm, activation, position, key
):
    config = member(norm, activation, position)
    wanted = alone(config, weights_of(config))
    assert wanted.std() > 0.5
    np.testing.assert_allclose(first_step(config, key).logits, wanted, atol=1e-5)


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
@pytest.mark.sweep(5)
def test_a_padded_model_drops_what_it_drops_alone(norm, activation, position, key):
    config = member(
        norm, activation, position, attention_dropout=0.2, residual_dropout=0.3
    )
    params = weights_of(config)
    got = first_step(config, jax.random.clone(key)).logits
    wanted = alone(config, params, dropout_key=key)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(wanted - alone(config, params)).max() > 0.1


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
@pytest.mark.sweep(5)
def test_padding_has_no_gradient_and_stays_zero(norm, activation, position, key):
    config = member(
        norm, activation, position, attention_dropout=0.1, residual_dropout=0.1
    )
    step = first_step(config, key)
    adam = step.moments[1][0]
    padding = jax.tree.leaves(padding_of(config))
    for tree in (step.grads, step.params, adam.mu, adam.nu):
        for leaf, padded in zip(jax.tree.leaves(tree), padding, strict=True):
            assert padded.any()
            np.testing.assert_array_equal(np.asarray(leaf)[padded], 0.0)
    for leaf, padded in zip(jax.tree.leaves(step.grads), padding, strict=True):
        assert padded.all() or np.any(np.asarray(leaf)[~padded] != 0)


def test_what_lies_in_the_padding_matters():
    # The tests above would miss a padding that nothing reads.
    config = member()
    dirty = jax.tree.map(
        lambda leaf, outside: np.where(outside, np.float32(0.1), leaf),
        fill(config, weights_of(config)),
        padding_of(config),
    )
    got = beside_zeros(dirty, data_of(config))
    assert np.abs(got - alone(config, weights_of(config))).max() > 0.1
