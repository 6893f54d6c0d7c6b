"""Traits: what varies between models of one shape, as data.

A single model passes Python constants, and XLA folds them. A population
passes arrays, and models of different width, norm, activation, position
encoding and dropout run in one compiled program, zero-padded to its shape.
There is one implementation of the maths for both.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch.config import (
    ACTIVATIONS,
    NORM_GROUPS,
    NORMALIZATIONS,
    POSITION_ENCODINGS,
    ArchitectureConfig,
)
from arch.families import USES


class Traits(NamedTuple):
    """Python numbers for a single model, i32[] and f32[] for a population."""

    width: int | jax.Array  # true hidden_dim, at most the shape's
    attention: int | jax.Array  # true channels of all query heads
    depth: int | jax.Array  # true num_layers; as data, layers beyond are skipped
    query_heads: int | jax.Array  # true num_heads; 1 for a family without heads
    key_value_heads: int | jax.Array
    normalization: int | jax.Array  # index into NORMALIZATIONS
    activation: int | jax.Array  # index into ACTIVATIONS
    position_encoding: int | jax.Array  # index into POSITION_ENCODINGS, -1 for none
    attention_dropout: float | jax.Array
    residual_dropout: float | jax.Array


def traits_of(config: ArchitectureConfig) -> Traits:
    """The config's traits as Python constants; what its family lacks is off."""
    config = config.canonical()
    positioned = "position_encoding" in USES[config.arch_type]
    encoding = POSITION_ENCODINGS.index(config.position_encoding)
    return Traits(
        width=config.hidden_dim,
        attention=config.attention_channels,
        depth=config.num_layers,
        query_heads=config.num_heads,
        key_value_heads=config.key_value_heads,
        normalization=NORMALIZATIONS.index(config.normalization),
        activation=ACTIVATIONS.index(config.activation),
        position_encoding=encoding if positioned else -1,
        attention_dropout=config.attention_dropout,
        residual_dropout=config.residual_dropout,
    )


def choose(
    index: int | jax.Array, branches: Sequence[Callable], *operands: jax.Array | None
) -> jax.Array:
    """Calls one of the branches: while tracing if it can, else on the device."""
    if isinstance(index, int):
        return branches[index](*operands)
    return jax.lax.switch(index, branches, *operands)


def is_encoding(traits: Traits, name: str) -> bool | jax.Array:
    """Whether the position encoding is `name`: a bool, or bool[] as data."""
    return traits.position_encoding == POSITION_ENCODINGS.index(name)


def channel_index(
    padded: int, width: int | jax.Array
) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]:
    """Which true channel each channel of a padded residual stream holds.

    The stream is padded inside each of its 8 groups, so that the groups of
    GroupNorm hold the same channels as in the unpadded model.

    Args:
      padded: channels of the shape.
      width: true channels; if less than `padded`, both are multiples of 8.

    Returns:
      (i32[padded], bool[padded]): the true index, and whether it is one.
    """
    if isinstance(width, int) and width == padded:
        return np.arange(padded, dtype=np.int32), np.ones(padded, bool)
    group, offset = np.divmod(np.arange(padded, dtype=np.int32), padded // NORM_GROUPS)
    size = width // NORM_GROUPS
    return group * size + offset, offset < size


def along_channels(values: np.ndarray | jax.Array, x: jax.Array) -> jax.Array:
    """Gives [D] the rank of x [..., D], to multiply it."""
    return jnp.expand_dims(values, tuple(range(x.ndim - 1)))
