import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import build_model, cost
from arch.config import QUANTIZATIONS, ArchitectureConfig
from arch.initial import draw_parameters
from jaxnas.compress import from_blocks, prune, prune_in_place, round_weights, to_blocks

GATED = ArchitectureConfig(
    arch_type="transformer",
    num_layers=2,
    hidden_dim=40,  # rows that end in a padded block
    num_heads=2,
    ffn_multiplier=4.0,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=50,
)
PLAIN = dataclasses.replace(
    GATED, activation="gelu", tie_embeddings=True, ffn_dim=150, num_layers=1
)
CONFIGS = pytest.mark.parametrize("config", [GATED, PLAIN], ids=["gated", "plain"])
BLOCKWISE = pytest.mark.parametrize("quantization", ["int8", "int4"])


def q8_0(row):
    """ggml's quantize_row_q8_0 and back, one block at a time, in float32."""
    out = np.zeros_like(row)
    for start in range(0, len(row), 32):
        block = row[start : start + 32]
        scale = np.float32(np.abs(block).max()) / np.float32(127)
        inverse = np.float32(1) / scale if scale else np.float32(0)
        scaled = block * inverse
        codes = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled)
        out[start : start + 32] = codes * np.float32(np.float16(scale))
    return out


def q4_0(row):
    """ggml's quantize_row_q4_0 and back: codes 0 to 15, 8 stands for zero."""
    out = np.zeros_like(row)
    for start in range(0, len(row), 32):
        block = row[start : start + 32]
        farthest = block[np.argmax(np.abs(block))]
        scale = farthest / np.float32(-8)
        inverse = np.float32(1) / scale if scale else np.float32(0)
        codes = np.minimum(15, np.trunc(block * inverse + np.float32(8.5)))
        out[start : start + 32] = (codes - 8) * np.float32(np.float16(scale))
    return out


REFERENCE = {"int8": q8_0, "int4": q4_0}


def random_rows(shape, seed=0):
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.normal(-3, 1, (*shape[:-1], 1)))
    return (spread * rng.standard_normal(shape)).astype(np.float32)


def rounded(rows, quantization):
    rows = jnp.asarray(rows)
    return np.asarray(from_blocks(to_blocks(rows, quantization), rows.shape[-1]))


def parameters(config, seed=0):
    """Drawn weights, with norms that are not all one."""
    drawn = draw_parameters(build_model(config), jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def change(path, leaf):
        if path[-1].key == "scale":
            return leaf * rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        return leaf

    return jax.tree.map(jnp.asarray, jax.tree_util.tree_map_with_path(change, drawn))


@functools.partial(jax.jit, static_argnums=0)
def apply(config, params):
    tokens = jnp.arange(24).reshape(2, 12) % config.vocab_size
    return build_model(config).apply({"params": params}, tokens)


def logits(config, params):
    return apply(dataclasses.replace(config, pruning_ratio=0.0), params)


@BLOCKWISE
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_rounding_is_that_of_ggml(quantization, length):
    rows = random_rows((200, length))
    wanted = np.stack([REFERENCE[quantization](row) for row in rows])
    found = rounded(rows, quantization)
    assert found.shape == rows.shape
    np.testing.assert_array_equal(found, wanted)


@BLOCKWISE
def test_signs_ties_and_zero_blocks(quantization):
    zero = np.zeros(32, np.float32)
    positive, negative = zero.copy(), zero.copy()
    positive[[3, 9]] = 2.0, -1.0
    negative[[3, 9]] = -2.0, 1.0
    both = zero.copy()
    both[[3, 9]] = 1.0, -1.0  # of equals the first takes -8, so the other is clipped
    row = np.concatenate([zero, positive, zero, negative, both])
    blocks = to_blocks(jnp.asarray(row[None]), quantization)
    assert blocks.scales[0, [0, 2]].tolist() == [0, 0]
    codes = np.asarray(blocks.codes[0])
    assert not codes[[0, 2]].any()
    found = rounded(row[None], quantization)[0]
    assert found[:32].tolist() == [0] * 32
    if quantization == "int8":
        assert codes[1::2, [3, 9]].tolist() == [[127, -64], [-127, 64]]
        assert codes[4, [3, 9]].tolist() == [127, -127]
    else:
        assert codes[1::2, [3, 9]].tolist() == [[-8, 4], [-8, 4]]
        assert codes[4, [3, 9]].tolist() == [-8, 7]
        assert found[32:64][[3, 9]].tolist() == [2.0, -1.0]
        assert found[128:][[3, 9]].tolist() == [1.0, -0.875]


@BLOCKWISE
def test_the_error_is_bounded_in_every_block(quantization):
    rows = random_rows((300, 96), seed=1)
    error = np.abs(rounded(rows, quantization) - rows).reshape(300, 3, 32).max(-1)
    largest = np.abs(rows).reshape(300, 3, 32).max(-1)
    # Half a step; int4's far end is clipped by up to a step. The scale is rounded
    # to 11 bits, or to a multiple of 2**-24 if it is tiny.
    steps = {"int8": 0.5 / 127, "int4": 1 / 8}[quantization]
    assert np.all(error <= largest * (steps + 2.0**-11) + 128 * 2.0**-25)
    codes = np.asarray(to_blocks(jnp.asarray(rows), quantization).codes)
    assert codes.min() == {"int8": -127, "int4": -8}[quantization]
    assert codes.max() == {"int8": 127, "int4": 7}[quantization]
    assert error.max() > 0


@BLOCKWISE
def test_rows_of_many_layers_are_rounded_each_alone(quantization):
    rows = random_rows((3, 5, 70))
    whole = rounded(rows, quantization)
    for layer in range(3):
        np.testing.assert_array_equal(
            whole[layer], rounded(rows[layer], quantization), strict=True
        )


# Parameter -> how its rows, the weights summed into one output, are taken out.
ROWS = {
    ("embed", "embedding"): lambda w: w,
    ("head", "kernel"): lambda w: w.T,
    ("blocks", "mixer", "query", "kernel"): lambda w: w.reshape(len(w), -1).T,
    ("blocks", "mixer", "key", "kernel"): lambda w: w.reshape(len(w), -1).T,
    ("blocks", "mixer", "value", "kernel"): lambda w: w.reshape(len(w), -1).T,
    ("blocks", "mixer", "out", "kernel"): lambda w: w.reshape(-1, w.shape[-1]).T,
    ("blocks", "feedforward", "up", "kernel"): lambda w: w.T,
    ("blocks", "feedforward", "gate", "kernel"): lambda w: w.T,
    ("blocks", "feedforward", "down", "kernel"): lambda w: w.T,
}


@BLOCKWISE
@pytest.mark.sweep(2)
def test_blocks_run_along_the_summed_axis(quantization):
    params = parameters(GATED)
    found = round_weights(params, QUANTIZATIONS.index(quantization))
    matrices = set()
    for path, weights in jax.tree_util.tree_leaves_with_path(params):
        name = tuple(entry.key for entry in path)
        after = found
        for part in name:
            after = after[part]
        assert after.dtype == jnp.float32
        assert after.shape == weights.shape
        if name not in ROWS:
            assert name[-1] == "scale"
            np.testing.assert_array_equal(after, weights.astype(jnp.float16))
            continue
        matrices.add(name)
        pairs = [(weights, after)]
        if name[0] == "blocks":
            pairs = list(zip(weights, after, strict=True))
        for before_layer, after_layer in pairs:
            rows = ROWS[name](np.asarray(before_layer))
            wanted = np.stack([REFERENCE[quantization](row) for row in rows])
            np.testing.assert_array_equal(ROWS[name](np.asarray(after_layer)), wanted)
    assert matrices == set(ROWS)


@pytest.mark.parametrize("index", range(len(QUANTIZATIONS)))
@pytest.mark.sweep(3)
def test_a_traced_index_rounds_as_the_constant(index):
    params = parameters(PLAIN)
    constant = round_weights(params, index)
    traced = jax.jit(round_weights)(params, jnp.int32(index))
    chex.assert_trees_all_equal(constant, traced)
    others = [round_weights(params, i) for i in range(len(QUANTIZATIONS)) if i != index]
    for other in others:
        assert not np.array_equal(
            other["embed"]["embedding"], constant["embed"]["embedding"]
        )


def test_fp16_is_rounded_to_fp16():
    params = parameters(GATED)
    found = round_weights(params, 0)
    chex.assert_trees_all_equal(
        found, jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), params)
    )
    chex.assert_trees_all_equal(round_weights(found, 0), found)


def test_rounding_again_changes_nothing_or_little():
    rows = random_rows((500, 64), seed=2)
    # int4's scale is stored exactly by the weight at -8; int8's is the largest over
    # 127, which may round to a neighbouring fp16 the second time.
    once = rounded(rows, "int4")
    np.testing.assert_array_equal(rounded(once, "int4"), once)
    once = rounded(rows, "int8")
    np.testing.assert_allclose(rounded(once, "int8"), once, rtol=2.0**-10)


def layer_scores(params):
    """Norm of what enters each channel times the norm of what leaves it: [L, F]."""
    layer = {k: np.asarray(v["kernel"], np.float64) for k, v in params.items()}
    entering = (layer["up"] ** 2).sum(1)
    if "gate" in layer:
        entering = entering + (layer["gate"] ** 2).sum(1)
    return np.sqrt(entering) * np.sqrt((layer["down"] ** 2).sum(2))


@CONFIGS
@pytest.mark.parametrize("ratio", [0.25, 0.6])
def test_the_heaviest_channels_of_each_layer_stay_in_order(config, ratio):
    config = dataclasses.replace(config, pruning_ratio=ratio)
    before = parameters(config)
    smaller, after = prune(config, before)
    kept = cost.kept_channels(config.feedforward_dim, ratio)
    assert (smaller.ffn_dim, smaller.pruning_ratio) == (kept, 0.0)
    assert smaller == dataclasses.replace(config, ffn_dim=kept, pruning_ratio=0.0)
    full = before["blocks"]["feedforward"]
    cut = after["blocks"]["feedforward"]
    chosen = []
    for number, scores in enumerate(layer_scores(full)):
        stays = np.sort(np.argsort(-scores)[:kept])
        chosen.append(stays)
        for name in full:
            whole = np.asarray(full[name]["kernel"][number])
            wanted = whole[stays] if name == "down" else whole[:, stays]
            np.testing.assert_array_equal(cut[name]["kernel"][number], wanted)
    if len(chosen) > 1:
        assert not np.array_equal(*chosen)
    rest = lambda p: p | {"blocks": p["blocks"] | {"feedforward": None}}
    chex.assert_trees_all_equal(rest(after), rest(before))


@CONFIGS
def test_pruning_in_place_is_the_function_of_the_cut_out_model(config):
    config = dataclasses.replace(config, pruning_ratio=0.6)
    params = parameters(config)
    smaller, cut = prune(config, params)
    wanted = logits(smaller, cut)
    kept = smaller.ffn_dim
    for count in (kept, jnp.int32(kept)):
        in_place = prune_in_place(params, count)
        chex.assert_trees_all_equal_shapes(in_place, params)
        np.testing.assert_allclose(logits(config, in_place), wanted, atol=1e-5)
    assert np.abs(logits(config, params) - wanted).max() > 1e-2


@CONFIGS
@BLOCKWISE
def test_quantised_in_place_is_quantised_after_the_cut(config, quantization):
    index = QUANTIZATIONS.index(quantization)
    config = dataclasses.replace(config, pruning_ratio=0.6)
    params = parameters(config)
    smaller, cut = prune(config, params)
    in_place = round_weights(prune_in_place(params, smaller.ffn_dim), index)
    found, wanted = logits(config, in_place), logits(smaller, round_weights(cut, index))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(logits(smaller, cut) - wanted).max() > 1e-4


@CONFIGS
def test_keeping_all_is_the_identity(config):
    params = parameters(config)
    in_place = prune_in_place(params, config.feedforward_dim)
    chex.assert_trees_all_equal(in_place, params)
    same, whole = prune(config, params)
    assert same is config
    assert whole is params


@CONFIGS
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9])
def test_what_is_left_is_what_the_costs_count(config, ratio):
    config = dataclasses.replace(config, pruning_ratio=ratio)
    smaller, cut = prune(config, parameters(config))
    sizes = [leaf.size for leaf in jax.tree.leaves(cut)]
    assert cost.stored_parameters(config) == sum(sizes)
    assert cost.parameters(smaller) == cost.stored_parameters(smaller) == sum(sizes)
    assert cost.size_bytes(smaller) == cost.size_bytes(config)
    shapes = jax.eval_shape(
        build_model(smaller).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
    )
    chex.assert_trees_all_equal_shapes(cut, shapes["params"])
