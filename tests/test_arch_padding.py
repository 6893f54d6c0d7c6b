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
from arch.traits import channel_index, traits_of

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


# The axes of each matrix, layer left out: the residual stream's channels, a
# head's channels and feed-forward channels are padded, others are shared.
AXES = {
    "embed": (None, "stream"),
    "head": ("stream", None),
    "query": ("stream", None, "head"),
    "key": ("stream", None, "head"),
    "value": ("stream", None, "head"),
    "out": (None, "head", "stream"),
    "up": ("stream", "inner"),
    "gate": ("stream", "inner"),
    "down": ("inner", "stream"),
    "norm": ("stream",),
    "mixer_norm": ("stream",),
    "feedforward_norm": ("stream",),
}


def places(config, path, shape):
    """Where a member's weights lie in the shape's: indices for np.ix_."""
    stream, true = channel_index(SHAPE.hidden_dim, config.hidden_dim)
    true = np.flatnonzero(true)
    where = {
        "stream": true[np.argsort(stream[true])],
        "head": np.arange(config.head_dim),
        "inner": np.arange(config.feedforward_dim),
    }
    names = [entry.key for entry in path]
    axes = AXES[names[-2]]
    if names[0] == "blocks":
        where["layer"] = np.arange(config.num_layers)
        axes = ("layer", *axes)
    return np.ix_(
        *[
            np.arange(size) if axis is None else where[axis]
            for axis, size in zip(axes, shape, strict=True)
        ]
    )


def shape_of(config):
    return dataclasses.replace(SHAPE, tie_embeddings=config.tie_embeddings)


def fill(config, params, value=0.0):
    """The shape's parameters with the member's in their places, else `value`."""
    zeros = jax.tree.map(np.zeros_like, weights_of(shape_of(config)))
    if "gate" not in params["blocks"]["feedforward"]:
        del zeros["blocks"]["feedforward"]["gate"]

    def put(path, wide, narrow):
        wide = np.full_like(wide, value)
        wide[places(config, path, wide.shape)] = narrow
        return wide

    filled = jax.tree_util.tree_map_with_path(put, zeros, params)
    gate = weights_of(shape_of(config))["blocks"]["feedforward"]["gate"]["kernel"]
    empty = {"kernel": np.full_like(gate, value)}
    filled["blocks"]["feedforward"].setdefault("gate", empty)
    return filled


def padding_of(config):
    """bool of the shape's parameters, True where nothing of the member lies."""
    ones = jax.tree.map(lambda leaf: 0 * leaf, weights_of(config))
    return jax.tree.map(lambda leaf: leaf == 1, fill(config, ones, value=1.0))


def tokens_of(batch=3, length=9):
    drawn = np.random.default_rng(1).integers(0, VOCAB, (batch, length))
    return jnp.asarray(drawn, jnp.int32)


def data_of(config):
    return jax.tree.map(jnp.asarray, traits_of(config))


def alone(config, params, **arguments):
    with jax.disable_jit():
        model = build_model(config)
        return model.apply({"params": params}, tokens_of(), **arguments)


def beside_zeros(params, traits, config=SHAPE):
    """Logits in the padded shape, op by op."""
    with jax.disable_jit():
        model = build_model(config)
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
def test_a_padded_model_computes_what_it_computes_alone(
    norm, activation, position, key
):
    config = member(norm, activation, position)
    wanted = alone(config, weights_of(config))
    assert wanted.std() > 0.5
    np.testing.assert_allclose(first_step(config, key).logits, wanted, atol=1e-5)


@pytest.mark.parametrize(("norm", "activation", "position"), ALL)
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


@pytest.mark.parametrize(
    ("norm", "activation", "position"),
    [
        ("layernorm", "geglu", "absolute"),
        ("rmsnorm", "swiglu", "rope"),
        ("groupnorm", "swiglu", "alibi"),
    ],
)
def test_a_padded_model_trains_as_it_trains_alone(norm, activation, position, key):
    config = member(
        norm, activation, position, attention_dropout=0.1, residual_dropout=0.1
    )
    narrow, traits, ends = weights_of(config), data_of(config), []
    for shape, params in ((MEMBER, narrow), (SHAPE, fill(config, narrow))):
        step, init = trainer(shape)
        moments, losses = init(params), []
        for at in range(20):
            some = jax.random.fold_in(jax.random.clone(key), at)
            done = step(params, moments, traits, some)
            params, moments = done.params, done.moments
            losses.append(done.loss)
        ends.append((np.stack(losses), jax.tree.map(np.asarray, params)))
    (losses, params), (padded_losses, padded) = ends
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_allclose(padded_losses, losses, atol=1e-5)
    wanted = jax.tree.leaves(fill(config, params))
    for got, leaf in zip(jax.tree.leaves(padded), wanted, strict=True):
        np.testing.assert_array_equal(got[leaf == 0], 0.0)
        assert np.linalg.norm(got - leaf) <= 1e-4 * np.linalg.norm(leaf)


@pytest.mark.parametrize(
    ("norm", "position", "changes"),
    [
        ("layernorm", "alibi", {"hidden_dim": 16}),
        ("groupnorm", "rope", {"hidden_dim": 48, "ffn_dim": 56, "num_layers": 1}),
        ("groupnorm", "absolute", {"hidden_dim": 48, "ffn_dim": 8, "num_layers": 3}),
        ("groupnorm", "absolute", {"tie_embeddings": True}),
    ],
)
def test_other_paddings(norm, position, changes):
    config = dataclasses.replace(member(norm, position=position), **changes)
    params = weights_of(config)
    if config.tie_embeddings:
        params["embed"]["embedding"] *= 8
    padded = fill(config, params)
    got = beside_zeros(padded, data_of(config), shape_of(config))
    np.testing.assert_allclose(got, alone(config, params), atol=1e-5)


def test_members_run_side_by_side_under_vmap():
    configs = [member(*ALL[at]) for at in (0, 7, 17, 26, 34)]
    params = [weights_of(config) for config in configs]
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    padded = stack([fill(c, p) for c, p in zip(configs, params, strict=True)])
    traits = stack([data_of(config) for config in configs])
    model = build_model(SHAPE)

    def run(params, traits):
        return model.apply({"params": params}, tokens_of(), traits)

    together = jax.jit(jax.vmap(run))(padded, traits)
    for config, some, logits in zip(configs, params, together, strict=True):
        np.testing.assert_allclose(logits, alone(config, some), atol=1e-5)


def test_what_lies_in_the_padding_matters():
    # The tests above would miss a padding that nothing reads.
    config = member()
    dirty = fill(config, weights_of(config), value=0.1)
    got = beside_zeros(dirty, data_of(config))
    assert np.abs(got - alone(config, weights_of(config))).max() > 0.1
