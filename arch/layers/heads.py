"""Channels of queries, keys and values as heads: one row, split as each member does.

A model's heads lie side by side in a row of channels. Where several models share a
shape, so do they: of n heads each has the row's length over n channels, rounded
down, its own and padding behind. How many there are is a trait, and the mixer is
compiled for each number that some member has.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.traits import Traits, choose


def split_heads(x: jax.Array, heads: int, channels: int) -> jax.Array:
    """[B, T, ...] with a row of channels behind -> [B, T, heads, channels]."""
    row = x.reshape(*x.shape[:2], -1)
    return row[..., : heads * channels].reshape(*x.shape[:2], heads, channels)


def join_heads(x: jax.Array, channels: int) -> jax.Array:
    """[B, T, ..., H] -> [B, T, channels], the inverse, zeros behind."""
    row = x.reshape(*x.shape[:2], -1)
    behind = channels - row.shape[-1]
    return jnp.pad(row, ((0, 0), (0, 0), (0, behind))) if behind else row


def head_channels(width: int, heads: int) -> int:
    """Channels of each head in a row of this width, padding included."""
    return width // heads


def choose_heads(
    config: ArchitectureConfig,
    traits: Traits,
    mix: Callable[..., Any],
    *operands: jax.Array,
) -> Any:
    """Calls `mix(heads, *operands)` with the model's own heads.

    Args:
      config: of the model, or the shape that holds it.
      traits: of the model.
      mix: gives arrays of one shape for any of `config.heads`.
      operands: see `choose`.
    """
    several = config.heads
    branches = [functools.partial(mix, heads) for heads in several]
    if len(several) == 1:
        return branches[0](*operands)
    own = traits.query_heads, traits.key_value_heads
    alike = [(own[0] == heads.query) & (own[1] == heads.key_value) for heads in several]
    return choose(jnp.argmax(jnp.stack(alike)), branches, *operands)
