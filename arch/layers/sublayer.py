"""What blocks are made of, and what reading a sequence in parts needs.

A sub-layer is called as `(x, state, traits, dropout_key, lengths)` and returns
`(y, state)`. Without a state it reads whole sequences from their start and
returns none. With one it goes on where the state ends; `lengths` then says how
many of a row's tokens are real, and what follows them never enters the state.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig


class Sublayer(NamedTuple):
    """A kind of sub-layer: the Flax module, and its empty state."""

    module: Callable  # (config, dtype, name=...) -> module
    init_state: Callable  # (config, batch, capacity, dtype) -> state


def no_state(
    config: ArchitectureConfig, batch: int, capacity: int, dtype: jax.typing.DTypeLike
) -> None:
    """The state of a sub-layer that remembers nothing."""


def is_real(lengths: jax.Array | None, tokens: int) -> jax.Array:
    """Which of the tokens are real: bool[B, T], bool[1, T] if all rows are whole."""
    if lengths is None:
        return jnp.ones((1, tokens), bool)
    return jnp.arange(tokens)[None] < lengths[:, None]


def tokens_read(lengths: jax.Array | None, tokens: int) -> int | jax.Array:
    """How many tokens each row reads: T, or i32[B]."""
    return tokens if lengths is None else lengths


def look_back(
    x: jax.Array, before: jax.Array | None, number: int, lengths: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Sets the inputs read before in front of x, and keeps the last real ones.

    Args:
      x: [B, T, C].
      before: [B, K, C], the last K inputs, zeros at the start; None for zeros.
      number: K.
      lengths: i32[B], real tokens of each row; None if all are.

    Returns:
      [B, K + T, C] of x's dtype, and the next call's `before`, of its dtype.
    """
    if before is None:
        before = jnp.zeros((x.shape[0], number, x.shape[2]), x.dtype)
    joined = jnp.concatenate([before.astype(x.dtype), x], axis=1)
    if lengths is None:
        return joined, joined[:, x.shape[1] :].astype(before.dtype)

    def last(row: jax.Array, end: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(row, end, number)

    return joined, jax.vmap(last)(joined, lengths).astype(before.dtype)
