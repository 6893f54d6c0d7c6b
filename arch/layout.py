"""How each parameter is laid out: its layer axis, its input axes, its rows.

A matrix's row holds the weights that are summed into one output. Blocks of
quantised weights run along rows, and so do a runtime's dot products.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Module name -> axes of its matrix that are summed over, layer axis left out.
INPUT_AXES = {
    "embed": (1,),  # [V, D]: a row is a token's embedding
    "head": (0,),  # [D, V]
    "query": (0,),  # [D, N, H]
    "key": (0,),
    "value": (0,),
    "out": (0, 1),  # [N, H, D]
    "up": (0,),  # [D, F]
    "gate": (0,),
    "down": (0,),  # [F, D]
}


class Layout(NamedTuple):
    """Where a parameter stands, read off its path."""

    module: str  # the module that owns it
    stacked: bool  # axis 0 is the layer
    matrix: bool  # has rows; False for a norm's scale


def layout_of(path: tuple) -> Layout:
    """Layout of the parameter at a `jax.tree_util` key path below "params"."""
    names = [entry.key for entry in path]
    module = names[-2]
    return Layout(module, names[0] == "blocks", module in INPUT_AXES)


def fan_in(layout: Layout, shape: tuple[int, ...]) -> int:
    """Inputs of the matrix: the length of its rows."""
    return math.prod(shape[axis] for axis in _input_axes(layout))


def to_rows(layout: Layout, weights: jax.Array) -> jax.Array:
    """A matrix as rows: [layers, rows, row_length], or [rows, row_length]."""
    axes = _input_axes(layout)
    moved = jnp.moveaxis(weights, axes, range(-len(axes), 0))
    lead = weights.shape[:1] if layout.stacked else ()
    return moved.reshape(*lead, -1, fan_in(layout, weights.shape))


def from_rows(layout: Layout, rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `to_rows`, for a matrix of `shape`."""
    axes = _input_axes(layout)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    moved = rows.reshape([shape[axis] for axis in (*others, *axes)])
    return jnp.moveaxis(moved, range(-len(axes), 0), axes)


def _input_axes(layout: Layout) -> tuple[int, ...]:
    shift = 1 if layout.stacked else 0
    return tuple(axis + shift for axis in INPUT_AXES[layout.module])
