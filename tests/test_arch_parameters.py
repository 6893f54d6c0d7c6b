"""Counted parameters are those of the modules."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import build_model, cost
from arch.families import FAMILIES, USES
from arch.genes import GENES
from arch.spaces import SPACES

# JAXNAS_COUNT_CONFIGS=2000 checks more.
NUMBER = int(os.environ.get("JAXNAS_COUNT_CONFIGS", "200"))
FULL = SPACES["full"]


def configs_of(family):
    """Random valid configs of the full space, and what is no gene."""
    place = FAMILIES.index(family)
    rng = np.random.default_rng(place)
    counts = [len(values) for values in FULL.choices]
    found = []
    while len(found) < len(range(place, NUMBER, len(FAMILIES))):
        genome = rng.integers(counts)
        genome[GENES.index("arch_type")] = FULL.values("arch_type").index(family)
        fields = {
            "vocab_size": int(rng.integers(257, 60001)),
            "tie_embeddings": bool(rng.integers(2)),
        }
        try:
            config = FULL.decode(genome, **fields)
        except ValueError:
            continue
        found.append(overridden(config, rng))
    return found


def overridden(config, rng):
    """Sets now and then what no gene sets."""
    heads = config.num_heads
    drawn = {
        "ffn_dim": int(rng.integers(1, 5000)),
        "inner_dim": int(rng.integers(1, 3000)),
        "kv_heads": int(rng.choice([n for n in range(1, heads + 1) if heads % n == 0])),
    }
    used = [name for name in drawn if name in USES[config.arch_type]]
    changes = {name: drawn[name] for name in used if rng.random() < 0.3}
    return dataclasses.replace(config, **changes)


def shapes_of(config):
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return jax.eval_shape(build_model(config).init, jax.random.key(0), tokens)["params"]


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.sweep(3)
def test_counted_parameters_are_those_of_the_modules(family):
    for config in configs_of(family):
        shapes = shapes_of(config)
        assert cost.parameters(config) == count(shapes), config
        ends = (shapes["embed"], shapes.get("head"))
        rest = count(shapes) - count(ends)
        assert cost.non_embedding_parameters(config) == rest, config


def test_stored_parameters_are_those_of_the_smaller_module():
    for family in FAMILIES:
        pruned = [config for config in configs_of(family) if config.pruning_ratio]
        assert pruned
        inner = "inner_dim" if family == "mamba" else "ffn_dim"
        for config in pruned[:3]:
            kept = cost.kept_channels(config.inner_channels, config.pruning_ratio)
            assert kept < config.inner_channels or kept <= 32
            smaller = dataclasses.replace(config, pruning_ratio=0.0, **{inner: kept})
            assert cost.stored_parameters(config) == count(shapes_of(smaller)), config


def test_the_configs_cover_what_changes_a_shape():
    configs = [config for family in FAMILIES for config in configs_of(family)]
    assert len(configs) == NUMBER
    assert len(set(configs)) == NUMBER
    for family in FAMILIES:
        own = [config for config in configs if config.arch_type == family]
        for gene in {"num_layers", "hidden_dim", "num_heads", "activation"}:
            if gene in USES[family]:
                values = {getattr(config, gene) for config in own}
                assert values == set(FULL.values(gene)), family
        for name in {"ffn_dim", "inner_dim", "kv_heads"} & USES[family]:
            assert {getattr(config, name) is None for config in own} == {False, True}
        assert {config.tie_embeddings for config in own} == {False, True}
