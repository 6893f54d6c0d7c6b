"""A classifier on a language model's blocks, of every family."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arch import ArchitectureConfig, build_model
from arch.classifier import SequenceClassifier
from arch.families import FAMILIES
from arch.initial import draw_parameters
from arch.padding import common_shape, pad
from arch.traits import channel_index
from jaxnas.training.members import traits_array


def config_of(family, **changes):
    fields = {
        "arch_type": family,
        "num_layers": 2,
        "hidden_dim": 32,
        "num_heads": 2,
        "ffn_multiplier": 2.0,
        "normalization": "rmsnorm",
        "activation": "gelu",
        "position_encoding": "rope",
        "vocab_size": 16,
        "max_seq_length": 8,
    }
    return ArchitectureConfig(**fields | changes).canonical()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_are_those_of_the_language_model(family, key):
    config = config_of(family)
    model = SequenceClassifier(config, classes=3)
    vectors = jax.random.normal(key, (2, 8, 5))
    shapes = jax.eval_shape(model.init, key, vectors)["params"]
    language = jax.eval_shape(
        build_model(config).init, key, jnp.zeros((2, 8), jnp.int32)
    )["params"]
    chex.assert_trees_all_equal_shapes(shapes["blocks"], language["blocks"])


@pytest.mark.parametrize("position", ["absolute", "alibi"])
def test_the_order_of_the_vectors_matters(position, key):
    for_x, for_params = jax.random.split(key)
    model = SequenceClassifier(config_of("transformer", position_encoding=position), 3)
    vectors = jax.random.normal(for_x, (2, 8, 5))
    params = model.init(for_params, vectors)
    logits = model.apply(params, vectors)
    chex.assert_shape(logits, (2, 3))
    swapped = model.apply(params, vectors[:, [1, 0, *range(2, 8)]])
    assert np.abs(logits - swapped).max() > 1e-4


def test_it_learns_what_only_the_first_vector_says(key):
    for_x, for_params = jax.random.split(key)
    vectors = jax.random.normal(for_x, (64, 4, 3))
    labels = jnp.asarray(vectors[:, 0].argmax(axis=1), jnp.int32)
    model = SequenceClassifier(config_of("transformer", num_layers=1), 3)
    optimizer = optax.adam(3e-3)

    def loss_of(params):
        logits = model.apply(params, vectors)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss_of)(params), state)
        return optax.apply_updates(params, updates), state

    params = model.init(for_params, vectors)
    start = params, optimizer.init(params)
    params, _ = jax.jit(lambda carry: jax.lax.fori_loop(0, 300, step, carry))(start)
    assert float(loss_of(params)) < 0.2 < np.log(3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_member_of_a_shape_tells_what_it_tells_alone(family, key):
    config = config_of(family, num_layers=1, position_encoding="absolute")
    other = config_of(family, hidden_dim=64, num_heads=4, normalization="groupnorm")
    shape = common_shape([config, other])
    language = draw_parameters(build_model(config), key)
    vectors = jax.random.normal(key, (2, 8, 5))
    alone = SequenceClassifier(config, 3)
    ends = alone.init(key, vectors)["params"]
    ends = {name: ends[name] for name in ("enter", "classes")}
    blocks = {
        name: language[name] for name in language if name not in ("embed", "head")
    }
    expected = alone.apply({"params": blocks | ends}, vectors)

    places = np.flatnonzero(channel_index(64, 32)[1])
    enter, classes = np.zeros((5, 64), np.float32), np.zeros((64, 3), np.float32)
    enter[:, places] = ends["enter"]["kernel"]
    classes[places] = ends["classes"]["kernel"]
    wide = pad(language, config, shape)
    params = {name: wide[name] for name in blocks} | {
        "enter": {"kernel": enter, "bias": np.zeros(64, np.float32)},
        "classes": {"kernel": classes, "bias": ends["classes"]["bias"]},
    }
    member = SequenceClassifier(shape, 3)
    found = member.apply({"params": params}, vectors, None, traits_array(config))
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
