import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import ArchitectureConfig, build_model
from arch.block import Block
from arch.initial import draw_parameters
from arch.layout import fan_in, from_rows, layout_of, to_rows
from arch.traits import traits_of

CONFIG = ArchitectureConfig(
    arch_type="transformer",
    num_layers=3,
    hidden_dim=24,
    num_heads=3,
    ffn_multiplier=1.5,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=17,
)
TIED = dataclasses.replace(CONFIG, tie_embeddings=True)
PARAMS = {
    config: draw_parameters(build_model(config), jax.random.key(0))
    for config in (CONFIG, TIED)
}


def leaves(config):
    return jax.tree_util.tree_flatten_with_path(PARAMS[config])[0]


def test_each_parameter_is_recognised():
    found = {
        "/".join(entry.key for entry in path): layout_of(path)
        for path, _ in leaves(CONFIG)
    }
    matrices = {name for name, layout in found.items() if layout.matrix}
    assert set(found) - matrices == {
        "norm/scale",
        "blocks/mixer_norm/scale",
        "blocks/feedforward_norm/scale",
    }
    assert {found[name].module for name in matrices} == set(SHAPES)
    for name, layout in found.items():
        assert layout.stacked == name.startswith("blocks/")


SHAPES = {  # rows and their lengths, of one layer
    "embed": (17, 24),
    "head": (17, 24),
    "query": (24, 24),
    "key": (24, 24),
    "value": (24, 24),
    "out": (24, 24),
    "up": (36, 24),
    "gate": (36, 24),
    "down": (24, 36),
}


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_rows_go_there_and_back(config):
    for path, leaf in leaves(config):
        layout = layout_of(path)
        if not layout.matrix:
            continue
        rows = to_rows(layout, leaf)
        lead = (3,) if layout.stacked else ()
        assert rows.shape == (*lead, *SHAPES[layout.module])
        assert fan_in(layout, leaf.shape) == SHAPES[layout.module][1]
        assert sorted(np.ravel(rows)) == sorted(np.ravel(leaf))
        np.testing.assert_array_equal(from_rows(layout, rows, leaf.shape), leaf)


def watched(module, *args):
    """Inputs and outputs of each matrix product as the modules compute it."""
    seen = {}

    def watch(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name == "__call__":
            seen[context.module.name] = (args[0], y)
        return y

    with nn.intercept_methods(watch), jax.disable_jit():
        module(*args)
    return seen


def rows_of(config, name, layer=None):
    for path, leaf in leaves(config):
        layout = layout_of(path)
        if layout.module == name:
            rows = np.asarray(to_rows(layout, leaf))
            return rows if layer is None else rows[layer]
    raise AssertionError(name)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_row_of_a_block_holds_what_is_summed_into_one_output(layer):
    block = jax.tree.map(lambda leaf: leaf[layer], PARAMS[CONFIG]["blocks"])
    x = np.random.default_rng(0).normal(size=(1, 4, 24)).astype(np.float32)

    def run(x):
        Block(CONFIG, jnp.float32).apply({"params": block}, x, None, traits_of(CONFIG))

    seen = watched(run, x)
    for name in set(SHAPES) - {"embed", "head"}:
        inputs, outputs = (np.asarray(a).reshape(4, -1) for a in seen[name])
        rows = rows_of(CONFIG, name, layer)
        np.testing.assert_allclose(inputs @ rows.T, outputs, atol=1e-5)
        one = sum(a * b for a, b in zip(inputs[1], rows[5], strict=True))
        assert abs(one - outputs[1, 5]) < 1e-5


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_a_row_of_the_ends_is_one_tokens(config):
    tokens = jnp.asarray([[3, 16, 0, 3]])
    model, variables = build_model(config), {"params": PARAMS[config]}
    seen = watched(model.apply, variables, tokens)
    given, embedded = seen["embed"]
    table = rows_of(config, "embed")
    np.testing.assert_array_equal(embedded[0], table[np.asarray(given[0])])
    stream, logits = seen["norm"][1], model.apply(variables, tokens)
    rows = table if config.tie_embeddings else rows_of(config, "head")
    np.testing.assert_allclose(stream[0] @ rows.T, logits[0], atol=1e-5)
