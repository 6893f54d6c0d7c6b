"""Group-wise rounding of weights, as it is stored: Q8_0 and Q4_0 blocks.

A block is 32 weights along a row with one fp16 scale (the formats of ggml). A
row that is no multiple of 32 ends in a block padded with zeros. What has no
rows, such as a norm's scale, is fp16 always.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

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
    params: Params, quantization: int | jax.Array, traits: Traits | None = None
) -> Params:
    """The values the weights have after being stored and read back.

    Args:
      params: a language model's "params".
      quantization: index into QUANTIZATIONS, a Python int or i32[].
      traits: of a model that is padded (see `arch.padding`): its blocks are those
        that it has alone.

    Returns:
      The same tree in float32.
    """

    def round_one(
        path: tuple[jax.tree_util.DictKey, ...], weights: jax.Array
    ) -> jax.Array:
        weights = weights.astype(jnp.float32)
        layout = layout_of(path)
        if not layout.matrix:
            return _round_fp16(weights)
        rows = to_rows(layout, weights)
        order = None
        if traits is not None:
            order = true_first(path, weights.shape, traits, channels)
        if order is not None:
            rows = jnp.take(rows, order, axis=-1)
        rows = choose(quantization, _ROUND, rows)
        if order is not None:
            rows = jnp.take(rows, jnp.argsort(order), axis=-1)
        return from_rows(layout, rows, weights.shape)

    channels = params["embed"]["embedding"].shape[1]
    return jax.tree_util.tree_map_with_path(round_one, params)


def to_blocks(rows: jax.Array, quantization: str) -> Blocks:
    """f32[..., rows, row_length] -> blocks of int8 or int4 codes."""
    padding = [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % BLOCK)]
    groups = jnp.pad(rows, padding).reshape(*rows.shape[:-1], -1, BLOCK)
    if quantization == "int8":
        step = jnp.abs(groups).max(axis=-1) / 127
        low, high = -127, 127
    else:
        # The weight farthest from zero gets the code -8, whatever its sign.
        farthest = jnp.abs(groups).argmax(axis=-1, keepdims=True)
        step = jnp.take_along_axis(groups, farthest, axis=-1)[..., 0] / -8
        low, high = -8, 7
    inverse = jnp.where(step == 0, 0, 1 / jnp.where(step == 0, 1, step))
    codes = jnp.clip(jnp.round(groups * inverse[..., None]), low, high)
    return Blocks(codes.astype(jnp.int8), step.astype(jnp.float16))


def from_blocks(blocks: Blocks, row_length: int) -> jax.Array:
    """The rows f32[..., rows, row_length] that the blocks encode."""
    values = blocks.codes.astype(jnp.float32) * blocks.scales[..., None].astype(
        jnp.float32
    )
    return values.reshape(*values.shape[:-2], -1)[..., :row_length]


def _round_fp16(weights: jax.Array) -> jax.Array:
    return weights.astype(jnp.float16).astype(jnp.float32)


def _round_blocks(quantization: str) -> Callable[[jax.Array], jax.Array]:
    def round_rows(rows: jax.Array) -> jax.Array:
        return from_blocks(to_blocks(rows, quantization), rows.shape[-1])

    return round_rows


_ROUND = [
    _round_fp16 if name == "fp16" else _round_blocks(name) for name in QUANTIZATIONS
]
