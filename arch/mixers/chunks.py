"""Reading a long sequence chunk by chunk, with bounded memory."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Tree: TypeAlias = Any  # of arrays


def scan_chunks(
    step: Callable[[Tree, Tree], tuple[Tree, Tree]],
    state: Tree,
    inputs: Tree,
    size: int,
) -> tuple[Tree, Tree]:
    """Hands a state from chunk to chunk along time.

    A chunk's inner values are computed again in the backward pass: what is kept
    is one state a chunk.

    Args:
      step: (state, inputs of a chunk [B, S, ...]) -> (state, outputs [B, S, ...]),
        S at most `size`.
      state: before the first chunk.
      inputs: arrays [B or 1, T, ...]. The last chunk is padded with zeros, so
        one of them should tell which tokens are real.
      size: tokens of a chunk.

    Returns:
      The state after the last chunk, and the outputs [B, T, ...].
    """
    tokens = jax.tree.leaves(inputs)[0].shape[1]
    step = jax.checkpoint(step)
    if tokens <= size:
        return step(state, inputs)
    chunks = -(-tokens // size)

    def split(x: jax.Array) -> jax.Array:
        widths = [(0, 0), (0, chunks * size - tokens)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, widths).reshape(x.shape[0], chunks, size, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    def join(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], chunks * size, *x.shape[3:])[:, :tokens]

    state, outputs = jax.lax.scan(step, state, jax.tree.map(split, inputs))
    return state, jax.tree.map(join, outputs)
