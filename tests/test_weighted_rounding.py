"""Rounding with data in view, in the blocks that are shipped."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_cells import perturbed
from test_gates import SMALL, of_family

from arch.config import QUANTIZATIONS
from arch.families import FAMILIES
from jaxnas.compress import from_blocks, round_weights, to_blocks
from jaxnas.compress.calibrate import round_calibrated
from jaxnas.compress.weighted import Moments, by_importance, gptq
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.export.model_folder import load_codes, load_model, save_model

KINDS = pytest.mark.parametrize("quantization", ["int8", "int4"])


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).standard_normal((24, 70)).astype(np.float32)


@pytest.fixture(scope="module")
def inputs():
    """Correlated, and of unequal size: f64[N, 70]."""
    rng = np.random.default_rng(1)
    mixed = rng.standard_normal((70, 70)) * 0.3 + np.eye(70)
    return rng.standard_normal((500, 70)) * np.geomspace(0.05, 5, 70) @ mixed


def values(blocks, length):
    return np.asarray(from_blocks(blocks, length), np.float64)


@KINDS
def test_importance_never_has_the_larger_weighted_error(rows, inputs, quantization):
    moments = Moments(inputs.T @ inputs)
    errors = [
        np.pad((values(blocks, 70) - rows) ** 2 * moments.squares, ((0, 0), (0, 26)))
        .reshape(24, 3, 32)
        .sum(axis=-1)
        for blocks in (
            by_importance(rows, moments, quantization),
            to_blocks(jnp.asarray(rows), quantization),
        )
    ]
    assert np.all(errors[0] <= errors[1] * (1 + 1e-5))
    assert errors[0].sum() < 0.95 * errors[1].sum()


@KINDS
def test_gptq_makes_up_for_errors(rows, inputs, quantization):
    moments = Moments(inputs.T @ inputs)
    outputs = [
        np.square(inputs @ (values(rounding(rows, moments, quantization), 70) - rows).T)
        for rounding in (gptq, by_importance)
    ]
    assert outputs[0].sum() < 0.8 * outputs[1].sum()


@KINDS
@pytest.mark.parametrize("rounding", [by_importance, gptq])
def test_codes_are_of_the_format(rows, inputs, rounding, quantization):
    blocks = rounding(rows, Moments(inputs.T @ inputs), quantization)
    low, high = {"int8": (-127, 127), "int4": (-8, 7)}[quantization]
    assert blocks.codes.shape == (24, 3, 32)
    assert blocks.codes.dtype == jnp.int8
    assert blocks.scales.dtype == jnp.float16
    assert low <= int(blocks.codes.min()) < 0 < int(blocks.codes.max()) <= high


@pytest.mark.parametrize("rounding", [by_importance, gptq])
def test_nothing_and_unread_inputs_stay_finite(rounding):
    rows = np.zeros((2, 64), np.float32)
    rows[0, 3] = 1.0
    found = rounding(rows, Moments(np.zeros((64, 64))), "int4")
    np.testing.assert_allclose(values(found, 64), rows, atol=1e-3)


LEARNED = {"position_encoding": "absolute", "learned_positions": True}


@pytest.mark.parametrize(
    "config",
    [*map(of_family, FAMILIES), of_family("transformer", **LEARNED)],
    ids=[*FAMILIES, "learned positions"],
)
def test_a_model_is_saved_with_the_codes_it_was_given(config, tmp_path):
    config = dataclasses.replace(config, vocab_size=258, quantization="int4")
    params = perturbed(config)
    windows = np.random.default_rng(0).integers(0, 258, (3, 12)).astype(np.int32)
    stored, codes = round_calibrated(config, params, windows, "int4", gptq)
    save_model(tmp_path, config, params, train_tokenizer(["ab"], 258), codes=codes)
    read = load_model(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, read.params, stored)
    held = load_codes(tmp_path)
    assert held.keys() == codes.keys()
    for name, (own, scales) in codes.items():
        np.testing.assert_array_equal(held[name][0], own)
        np.testing.assert_array_equal(held[name][1], scales)
    # Every matrix, and none as plain rounding leaves it all.
    plain = round_weights(params, QUANTIZATIONS.index("int4"))
    for one, other in zip(jax.tree.leaves(stored), jax.tree.leaves(plain), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 0.5 * np.abs(other).max()


def test_a_tied_embedding_is_rounded_once():
    config = of_family("transformer", tie_embeddings=True)
    windows = np.zeros((1, 4), np.int32)
    _, codes = round_calibrated(config, perturbed(config), windows, "int8", gptq)
    assert "head.kernel" not in codes
    assert codes["embed.embedding"][0].shape == (SMALL.vocab_size, 1, 32)
