"""Group-wise rounding of weights, as it is stored: Q8_0 and Q4_0 blocks.

A block is 32 weights along a row with one fp16 scale (the formats of ggml). A
row that is no multiple of 32 ends in a block padded with zeros. What has no
rows, such as a norm's scale, is fp16 always.
"""

import functools
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch import Params
from arch.config import QUANTIZATIONS
from arch.cost import STORAGE
from arch.layout import from_rows, layout_of, to_rows
from arch.padding import true_first
from arch.traits import Traits, choose

BLOCK = int(STORAGE["int8"].block)  # int4's too


class Blocks(NamedTuple):
    """A matrix in blocks of 32 weights."""

    codes: jax.Array  # i8[..., rows, blocks, 32]
    scales: jax.Array  # f16[..., rows, blocks]


def round_weights(
    params: Params,
    quantization: int | jax.Array,
    traits: Traits | None = None,
    xp: ModuleType = jnp,
) -> Params:
    """The values the weights have after being stored and read back.

    Args:
      params: a language model's "params".
      quantization: index into QUANTIZATIONS, a Python int or i32[].
      traits: of a model that is padded (see `arch.padding`): its blocks are those
        that it has alone.
      xp: `jax.numpy`, or `numpy` to compile nothing.

    Returns:
      The same tree in float32.
    """

    def round_one(
        path: tuple[jax.tree_util.DictKey, ...], weights: jax.Array
    ) -> jax.Array:
        weights = weights.astype(np.float32)
        layout = layout_of(path)
        if not layout.matrix:
            return _round_fp16(weights)
        rows = to_rows(layout, weights, xp)
        order = None
        if traits is not None:
            order = true_first(path, weights.shape, traits)
        if order is not None:
            rows = xp.take(rows, order, axis=-1)
        rows = choose(quantization, rounds, rows)
        if order is not None:
            rows = xp.take(rows, xp.argsort(order), axis=-1)
        return from_rows(layout, rows, weights.shape, xp)

    rounds = [functools.partial(_round_rows, name, xp) for name in QUANTIZATIONS]
    # NumPy warns of what becomes infinite and of what is no number; JAX does not.
    with np.errstate(over="ignore", invalid="ignore"):
        return jax.tree_util.tree_map_with_path(round_one, params)


def to_blocks(
    rows: jax.Array | np.ndarray, quantization: str, xp: ModuleType = jnp
) -> Blocks:
    """f32[..., rows, row_length] -> blocks of int8 or int4 codes."""
    padding = [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % BLOCK)]
    groups = xp.pad(rows, padding).reshape(*rows.shape[:-1], -1, BLOCK)
    if quantization == "int8":
        step = xp.abs(groups).max(axis=-1) / 127
        low, high = -127, 127
    else:
        # The weight farthest from zero gets the code -8, whatever its sign.
        farthest = xp.abs(groups).argmax(axis=-1, keepdims=True)
        step = xp.take_along_axis(groups, farthest, axis=-1)[..., 0] / -8
        low, high = -8, 7
    inverse = xp.where(step == 0, 0, 1 / xp.where(step == 0, 1, step))
    codes = xp.clip(xp.round(groups * inverse[..., None]), low, high)
    return Blocks(codes.astype(np.int8), step.astype(np.float16))


def host_codes(rows: np.ndarray, quantization: str) -> tuple[np.ndarray, np.ndarray]:
    """The codes and scales of `to_blocks`; nothing is compiled."""
    codes, scales = to_blocks(rows, quantization, np)
    return np.ascontiguousarray(codes), np.ascontiguousarray(scales)


def from_blocks(blocks: Blocks, row_length: int) -> jax.Array:
    """The rows f32[..., rows, row_length] that the blocks encode."""
    scales = blocks.scales[..., None].astype(np.float32)
    values = blocks.codes.astype(np.float32) * scales
    return values.reshape(*values.shape[:-2], -1)[..., :row_length]


def _round_fp16(weights: jax.Array) -> jax.Array:
    return weights.astype(np.float16).astype(np.float32)


def _round_rows(quantization: str, xp: ModuleType, rows: jax.Array) -> jax.Array:
    if quantization == "fp16":
        return _round_fp16(rows)
    return from_blocks(to_blocks(rows, quantization, xp), rows.shape[-1])
