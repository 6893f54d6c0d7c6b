"""Non-dominated ranks: the front, the front of the rest, and so on."""

from typing import TypeAlias

import jax
import jax.numpy as jnp

from search.pareto.dominance import failed

BITS = 32  # individuals in a word

_Peeled: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]  # rank, ranks, the rest


def non_dominated_ranks(objectives: jax.Array, enough: int | None = None) -> jax.Array:
    """The number of the front that each individual is on (Goldberg 1989).

    Which dominates which is held in bits, N^2 / 8 bytes of them. Then front after
    front is peeled off, each in O(N^2 / 32).

    Args:
      objectives: f32[N, M], minimised.
      enough: stop once that many have a rank; all N if None.

    Returns:
      i32[N], from 0; N for those that failed or had no rank when it stopped.
    """
    number = objectives.shape[0]
    words = -(-number // BITS)
    spare = ((0, words * BITS - number), (0, 0))
    rows = jnp.pad(objectives, spare, constant_values=jnp.inf)
    rest = ~failed(rows)
    over = _dominators(jnp.where(rest[:, None], rows, jnp.inf), words)
    wanted = jnp.minimum(rest.sum(), number if enough is None else enough)
    left_at_end = rest.sum() - wanted

    def going_on(carry: _Peeled) -> jax.Array:
        return carry[2].sum() > left_at_end

    def peel(carry: _Peeled) -> _Peeled:
        rank, ranks, rest = carry
        dominated = (over & _packed(rest, words)[:, None]).any(axis=0)
        return rank + 1, jnp.where(rest & ~dominated, rank, ranks), rest & dominated

    start = jnp.int32(0), jnp.full(rest.shape, number, jnp.int32), rest
    return jax.lax.while_loop(going_on, peel, start)[1][:number]


def _dominators(rows: jax.Array, words: int) -> jax.Array:
    """f32[N, M] -> u32[words, N]: a column has the bits of those that dominate it.

    Individual b * words + w is bit b of word w, so that each bit of all words
    is a slice of the rows. Rows that failed hold infinities.
    """
    over = jnp.zeros((words, rows.shape[0]), jnp.uint32)
    for bit in range(BITS):
        these = rows[bit * words : (bit + 1) * words]
        no_worse = jnp.ones(over.shape, bool)
        better = jnp.zeros(over.shape, bool)
        for column, other in zip(these.T, rows.T, strict=True):
            no_worse &= column[:, None] <= other[None]
            better |= column[:, None] < other[None]
        over |= jnp.where(no_worse & better, jnp.uint32(1 << bit), jnp.uint32(0))
    return over


def _packed(flags: jax.Array, words: int) -> jax.Array:
    """bool[N] -> u32[words], in the order of `_dominators`."""
    bit = jnp.uint32(1) << jnp.arange(BITS, dtype=jnp.uint32)
    ones = jnp.where(flags.reshape(BITS, words), bit[:, None], jnp.uint32(0))
    return ones.sum(axis=0, dtype=jnp.uint32)
