"""What published models have otherwise than ours keeps what the rest keeps."""

import dataclasses

import jax
import numpy as np
import pytest
from export_cells import cell

from arch import build_model, cost
from arch.decoding.unrolled import forward_with_cache, init_layers, unstack
from arch.families import VARIANTS
from arch.genes import ALLOWED_GENES
from arch.initial import draw_parameters
from arch.padding import (
    common_shape,
    extract,
    holds,
    pad,
    parameter_shapes,
    shape_key,
)
from jaxnas.compress import prune, prune_in_place
from jaxnas.training.keys import training_key
from jaxnas.training.loop import rate_factor
from jaxnas.training.members import traits_array
from jaxnas.training.single import training_config

BIASED = dataclasses.replace(
    cell("grouped_query_attention", "layernorm", "absolute", "gelu", kv_heads=2),
    qkv_bias=True,
    biases=True,
    tanh_gelu=True,
    learned_positions=True,
    sliding_window=5,
)
ROTARY = dataclasses.replace(
    cell("grouped_query_attention", kv_heads=2),
    norm_epsilon=1e-6,
    rope_theta=500.0,
    rope_scaling=3.0,
    qkv_bias=True,
)
PARALLEL = dataclasses.replace(
    cell("transformer", "layernorm", "rope", "gelu"),
    biases=True,
    tanh_gelu=True,
    rotary_dim=4,
    parallel_residual=True,
    shared_norm=True,
    head_bias=True,
)
MODELS = pytest.mark.parametrize(
    "config", [BIASED, ROTARY, PARALLEL], ids=["biased", "rotary", "parallel"]
)
# With another value there would be other parameters.
PARAMETERS = ("qkv_bias", "biases", "learned_positions", "shared_norm", "head_bias")
TOKENS = np.random.default_rng(0).integers(0, 300, (2, 20))


def drawn(config, seed=0):
    """Parameters none of which is zero."""
    params = draw_parameters(build_model(config), jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32), params
    )


def with_norms(params):
    """A norm for each branch, where one served both."""
    blocks = params["blocks"]
    return params | {"blocks": blocks | {"feedforward_norm": blocks["mixer_norm"]}}


def logits(config, params, traits=None):
    return np.asarray(build_model(config).apply({"params": params}, TOKENS, traits))


@MODELS
def test_parameters_are_counted(config):
    tied = dataclasses.replace(config, tie_embeddings=True, head_bias=False)
    for one in (config, tied):
        sizes = (leaf.size for leaf in jax.tree.leaves(drawn(one)))
        assert cost.parameters(one) == sum(sizes)


@MODELS
def test_every_variant_changes_what_is_computed(config):
    params = drawn(config)
    whole = logits(config, params)
    for name, value in VARIANTS.items():
        if getattr(config, name) == value or name in PARAMETERS:
            continue
        alone = {"shared_norm": False} if name == "parallel_residual" else {}
        changed = dataclasses.replace(config, **alone, **{name: value})
        other = logits(changed, with_norms(params) if alone else params)
        assert np.abs(other - whole).max() > 1e-6, name


@MODELS
def test_reading_in_parts_equals_reading_at_once(config):
    params = drawn(config)
    states, weights = init_layers(config, 2, 20), unstack(params)
    whole = logits(config, params)
    for begin, end in ((0, 7), (7, 8), (8, 20)):
        part = TOKENS[:, begin:end]
        found, states = forward_with_cache(config, weights, part, states)
        np.testing.assert_allclose(found, whole[:, end - 1], atol=1e-4)


@MODELS
def test_a_model_in_a_shape_computes_the_same(config):
    wider = dataclasses.replace(config, hidden_dim=64, num_layers=3, ffn_dim=200)
    shape = common_shape([config, wider])
    assert holds(shape, config)
    assert all(getattr(shape, name) == getattr(config, name) for name in VARIANTS)
    params = drawn(config)
    padded = pad(params, config, shape)
    found = logits(shape, padded, traits_array(config))
    np.testing.assert_allclose(found, logits(config, params), atol=1e-4, rtol=1e-4)
    back = extract(padded, config, shape)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, back))


def test_other_variants_are_other_shapes():
    plain = cell("grouped_query_attention", kv_heads=2)
    assert shape_key(plain) != shape_key(ROTARY)
    assert not set(VARIANTS) & set(ALLOWED_GENES)


def test_pruning_takes_biases_along():
    config = dataclasses.replace(BIASED, pruning_ratio=0.5, ffn_dim=128)
    params = drawn(config)
    smaller, cut = prune(config, params)
    assert cost.parameters(smaller) == sum(x.size for x in jax.tree.leaves(cut))
    assert cut["blocks"]["feedforward"]["up"]["bias"].shape == (2, 64)
    in_place = logits(config, prune_in_place(params, 64))
    np.testing.assert_allclose(logits(smaller, cut), in_place, atol=1e-4)


def test_a_window_hides_what_is_before_it():
    config = dataclasses.replace(BIASED, num_layers=1, sliding_window=5)
    params = drawn(config)
    states, weights = init_layers(config, 2, 20), unstack(params)
    other = TOKENS.copy()
    other[:, :5] = 299 - other[:, :5]  # seen up to token 8
    one = logits(config, params)
    two = np.asarray(build_model(config).apply({"params": params}, other))
    np.testing.assert_allclose(one[:, 9:], two[:, 9:], atol=1e-5)
    assert np.abs(one[:, 8] - two[:, 8]).max() > 1e-3
    found, _ = forward_with_cache(config, weights, other, states)
    np.testing.assert_allclose(found, one[:, -1], atol=1e-4)


def test_of_a_window_the_tokens_in_it_are_counted():
    whole = dataclasses.replace(ROTARY, max_seq_length=4096)
    cut = dataclasses.replace(whole, sliding_window=64)

    def decoding(config, tokens):
        return cost.list_ops(cost.sizes_of(config), cost.decode(past=tokens))

    for tokens in (20, 63):
        assert decoding(cut, tokens) == decoding(whole, tokens)
    assert decoding(cut, 1000) == decoding(whole, 63)
    assert cost.prefill_flops(cut, tokens=256) < cost.prefill_flops(whole, tokens=256)
    for tokens in (32, 1000):
        within = cost.state_bytes(whole, tokens=min(tokens, 64))
        assert cost.state_bytes(cut, tokens=tokens) == within


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("mamba", "biases", True),
        ("linear_transformer", "qkv_bias", True),
        ("linear_transformer", "rope_theta", 500.0),
        ("rwkv", "head_bias", True),
        ("flash_attention", "sliding_window", 5),
    ],
)
def test_a_variant_that_a_family_does_not_have_is_refused(family, field, value):
    plain = dataclasses.replace(cell("transformer"), arch_type=family)
    with pytest.raises(ValueError, match=f"{field}=.*: {family} has nothing else"):
        dataclasses.replace(plain, **{field: value})


def test_a_window_is_trained_as_it_is():
    config = dataclasses.replace(
        cell("transformer"), sliding_window=64, max_seq_length=512
    )
    assert training_config(config).sliding_window == 64
    assert training_config(config).arch_type == "transformer"


def test_whole_numbers_and_fractions_are_one_training():
    whole = dataclasses.replace(
        cell("transformer"), ffn_multiplier=4, residual_dropout=0, pruning_ratio=0
    )
    other = dataclasses.replace(
        cell("transformer"), ffn_multiplier=4.0, residual_dropout=0.0, pruning_ratio=0.0
    )
    assert whole.to_json() == other.to_json()
    # Whichever was asked for first.
    assert training_key.__wrapped__(whole) == training_key.__wrapped__(other)


def test_positions_learn_as_tokens_do():
    """At the rate of the embedding, and orthogonal under no optimizer."""
    config = dataclasses.replace(BIASED, hidden_dim=768, num_heads=12)
    rates = {
        path[0].key: rate_factor(path, 768)
        for path, _ in jax.tree_util.tree_leaves_with_path(parameter_shapes(config))
        if path[-1].key == "embedding"
    }
    assert rates["positions"] == rates["embed"]
