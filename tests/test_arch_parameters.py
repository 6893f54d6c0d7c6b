"""Counted parameters are those of the modules."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import build_model, cost
from arch.space import GENES
from arch.spaces import SPACES

# JAXNAS_COUNT_CONFIGS=2000 checks more.
NUMBER = int(os.environ.get("JAXNAS_COUNT_CONFIGS", "300"))
PARTS = 10


def configs_of(part):
    """Random valid transformers of the full space, and what is no gene."""
    full, rng = SPACES["full"], np.random.default_rng(part)
    transformer = full.values("arch_type").index("transformer")
    counts = [len(values) for values in full.choices]
    wanted = len(range(part, NUMBER, PARTS))
    found = []
    while len(found) < wanted:
        genome = rng.integers(counts)
        genome[GENES.index("arch_type")] = transformer
        fields = {
            "vocab_size": int(rng.integers(257, 60001)),
            "tie_embeddings": bool(rng.integers(2)),
        }
        try:
            config = full.decode(genome, **fields)
        except ValueError:
            continue
        if rng.random() < 0.3:
            inner = int(rng.integers(1, 5000))
            config = dataclasses.replace(config, ffn_dim=inner)
        found.append(config)
    return found


def shapes_of(config):
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return jax.eval_shape(build_model(config).init, jax.random.key(0), tokens)


@pytest.mark.parametrize("part", range(PARTS))
def test_counted_parameters_are_those_of_the_modules(part):
    for config in configs_of(part):
        shapes = shapes_of(config)["params"]
        total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        assert cost.parameters(config) == total, config
        ends = (shapes["embed"], shapes.get("head"))
        rest = total - sum(leaf.size for leaf in jax.tree.leaves(ends))
        assert cost.non_embedding_parameters(config) == rest, config


def test_the_configs_cover_what_changes_a_shape():
    configs = [config for part in range(PARTS) for config in configs_of(part)]
    assert len(configs) == NUMBER
    for field in ("num_layers", "hidden_dim", "num_heads", "activation"):
        values = {getattr(config, field) for config in configs}
        assert values == set(SPACES["full"].values(field))
    assert {config.tie_embeddings for config in configs} == {False, True}
    assert {config.ffn_dim is None for config in configs} == {False, True}
