"""How each parameter is laid out: its layer axis, its input axes, its rows.

A matrix's row holds the weights that are summed into one output. Blocks of
quantised weights run along rows, and so do a runtime's dot products.
"""

import math
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Module name -> axes of its kernel that are summed over, layer axis left out.
# A name means one thing: modules of different families share it only if they
# share the axes.
INPUT_AXES = {
    "embed": (1,),  # [V, D]: a row is a token's embedding
    "head": (0,),  # [D, V]
    "positions": (1,),  # [T, D]
    "query": (0,),  # [D, N, H]
    "key": (0,),  # [D, K, H], in RWKV [D, D]
    "value": (0,),
    "out": (0, 1),  # [N, H, D]
    "up": (0,),  # [D, F]
    "gate": (0,),
    "down": (0,),  # [F, D]
    "in_proj": (0,),  # [D, 2, E]: what is scanned, and its gate
    "x_proj": (0,),  # [E, 2 N + R]: input and output vectors, step size
    "dt_proj": (0,),  # [R, E]
    "out_proj": (0,),  # [E, D]
    "receptance": (0,),  # [D, D]
    "output": (0,),  # [D, D]
}


class Layout(NamedTuple):
    """What a parameter is, read off its path."""

    module: str  # the module that owns it
    stacked: bool  # axis 0 is the layer
    matrix: bool  # has rows; False for scales, biases, decays


def layout_of(path: tuple) -> Layout:
    """Layout of the parameter at a `jax.tree_util` key path below "params"."""
    names = [entry.key for entry in path]
    matrix = names[-1] in ("kernel", "embedding")
    return Layout(names[-2], names[0] == "blocks", matrix)


def fan_in(layout: Layout, shape: tuple[int, ...]) -> int:
    """Inputs of the matrix: the length of its rows."""
    return math.prod(shape[axis] for axis in input_axes(layout))


def to_rows(
    layout: Layout, weights: jax.Array | np.ndarray, xp: ModuleType = jnp
) -> jax.Array:
    """A matrix as rows: [layers, rows, row_length], or [rows, row_length].

    `xp` is `jax.numpy`, or `numpy` to compile nothing.
    """
    axes = input_axes(layout)
    moved = xp.moveaxis(weights, axes, range(-len(axes), 0))
    lead = weights.shape[:1] if layout.stacked else ()
    return moved.reshape(*lead, -1, fan_in(layout, weights.shape))


def from_rows(
    layout: Layout, rows: jax.Array, shape: tuple[int, ...], xp: ModuleType = jnp
) -> jax.Array:
    """The inverse of `to_rows`, for a matrix of `shape`."""
    axes = input_axes(layout)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    moved = rows.reshape([shape[axis] for axis in (*others, *axes)])
    return xp.moveaxis(moved, range(-len(axes), 0), axes)


def input_axes(layout: Layout) -> tuple[int, ...]:
    """The axes of a matrix that are summed over."""
    shift = 1 if layout.stacked else 0
    return tuple(axis + shift for axis in INPUT_AXES[layout.module])
