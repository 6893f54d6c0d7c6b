import dataclasses
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from arch import ArchitectureConfig, build_model
from arch.initial import draw_parameters

CONFIG = ArchitectureConfig(
    arch_type="transformer",
    num_layers=3,
    hidden_dim=48,
    num_heads=4,
    ffn_multiplier=2.0,
    normalization="rmsnorm",
    activation="geglu",
    position_encoding="absolute",
    vocab_size=400,
)
TIED = dataclasses.replace(CONFIG, tie_embeddings=True)


def initialised(config, key):
    return jax.jit(build_model(config).init)(key, jnp.zeros((1, 1), int))["params"]


def drawn(config, key):
    return draw_parameters(build_model(config), key)


WAYS = {"flax": initialised, "host": drawn}


def by_path(params):
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {
        "/".join(entry.key for entry in path[:-1]): np.asarray(leaf)
        for path, leaf in leaves
    }


def documented(config):
    """Each matrix's standard deviation: see the docstring of arch.initial."""
    hidden, inner = config.hidden_dim, config.feedforward_dim
    writing = math.sqrt(2 * config.num_layers)
    found = {
        "embed": 0.02 if config.tie_embeddings else 1.0,
        "blocks/mixer/query": 1 / math.sqrt(hidden),
        "blocks/mixer/key": 1 / math.sqrt(hidden),
        "blocks/mixer/value": 1 / math.sqrt(hidden),
        "blocks/mixer/out": 1 / math.sqrt(hidden) / writing,
        "blocks/feedforward/up": 1 / math.sqrt(hidden),
        "blocks/feedforward/gate": 1 / math.sqrt(hidden),
        "blocks/feedforward/down": 1 / math.sqrt(inner) / writing,
    }
    return found if config.tie_embeddings else {**found, "head": 0.02}


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_the_host_draws_the_tree_that_flax_initialises(config, key):
    mine, theirs = drawn(config, key), initialised(config, jax.random.clone(key))
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.tree.map(jnp.asarray, mine), theirs
    )
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(mine))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_matrices_are_normal_with_the_documented_deviation(config, way, key):
    tensors, wanted = by_path(WAYS[way](config, key)), documented(config)
    scales = {"norm", "blocks/mixer_norm", "blocks/feedforward_norm"}
    assert set(tensors) == set(wanted) | scales
    for name, deviation in wanted.items():
        values = tensors[name].ravel().astype(np.float64)
        assert abs(values.mean()) < 5 * deviation / math.sqrt(values.size)
        spread = deviation / math.sqrt(2 * values.size)  # of the estimate
        assert abs(values.std() - deviation) < 5 * spread, name
        assert stats.kstest(values / deviation, "norm").pvalue > 1e-4
    for name in scales:
        np.testing.assert_array_equal(tensors[name], 1.0)


@pytest.mark.parametrize("way", WAYS)
def test_tensors_and_layers_are_independent(way, key):
    tensors = by_path(WAYS[way](CONFIG, key))
    samples = 48 * 48
    rows = []
    for name in documented(CONFIG):
        layers = tensors[name] if name.startswith("blocks") else tensors[name][None]
        rows += [layer.ravel()[:samples] for layer in layers]
    found = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(found).max() < 5 / math.sqrt(samples)


def test_a_key_gives_its_weights_and_another_key_others(key):
    first = by_path(drawn(CONFIG, key))
    again = by_path(drawn(CONFIG, jax.random.key(0)))
    other = by_path(drawn(CONFIG, jax.random.key(1)))
    split = by_path(drawn(CONFIG, jax.random.split(jax.random.key(0))[0]))
    for name in documented(CONFIG):
        np.testing.assert_array_equal(first[name], again[name])
        for one, two in itertools.combinations((first, other, split), 2):
            values = one[name].ravel(), two[name].ravel()
            agreement = np.corrcoef(*values)[0, 1]
            assert abs(agreement) < 5 / math.sqrt(values[0].size)


def test_a_tensor_is_drawn_by_its_path_alone(key):
    # What else a model has changes no draw: an added gate, another vocabulary.
    plain = dataclasses.replace(CONFIG, activation="gelu", vocab_size=401)
    with_gate, without = (
        by_path(drawn(CONFIG, key)),
        by_path(drawn(plain, jax.random.clone(key))),
    )
    for name in set(without) - {"embed", "head"}:
        np.testing.assert_array_equal(with_gate[name], without[name])


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.sweep(4)
def test_the_first_loss_is_that_of_a_uniform_guess(config, way, key):
    params = WAYS[way](config, key)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (8, 33))
    with jax.disable_jit():
        logits = build_model(config).apply({"params": params}, tokens[:, :-1])
    logs = jax.nn.log_softmax(logits)
    loss = -np.take_along_axis(np.asarray(logs), tokens[:, 1:, None], axis=-1).mean()
    assert abs(loss - math.log(config.vocab_size)) < 0.05
