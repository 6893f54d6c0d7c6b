"""Selection by one minimised loss. What is not finite has failed: it never wins."""

import jax
import jax.numpy as jnp

from search.order import repeats


def elite(losses: jax.Array, ids: jax.Array, number: int) -> jax.Array:
    """Finds the best, in order; those that failed come last.

    Args:
      losses: f32[N], minimised; NaN and infinities are failures.
      ids: i32[N], break ties: the lower id is the better.
      number: how many, at most N.

    Returns:
      i32[number], indices into losses.
    """
    return jnp.lexsort((ids, _failures_last(losses)))[:number]


def tournament(key: jax.Array, losses: jax.Array, k: int = 3) -> jax.Array:
    """Draws k individuals, all distinct, and finds the best of them.

    One that failed is drawn only when nothing else is left. So among n that
    succeeded the one with j better ones wins with probability
    C(n-1-j, k-1) / C(n, k), and the best always wins if n <= k.

    Args:
      key: PRNG key, consumed.
      losses: f32[N], minimised; NaN and infinities are failures.
      k: at least 1; more than N count as N.

    Returns:
      i32[], an index into losses, of a failure only if all failed.
    """
    losses = _failures_last(losses)
    order = jax.random.uniform(key, losses.shape) - jnp.isinf(losses)
    _, drawn = jax.lax.top_k(order, min(k, losses.shape[0]))
    return drawn[jnp.argmin(losses[drawn])]


def repeated(genomes: jax.Array, losses: jax.Array, ids: jax.Array) -> jax.Array:
    """Marks every copy of a genome but the best one, of equals the lowest id.

    Args:
      genomes: i32[N, G].
      losses: f32[N], minimised; NaN and infinities are failures.
      ids: i32[N].

    Returns:
      bool[N], False for one row of each distinct genome.
    """
    # Copies meet when rows are sorted by their genes, the best of them first.
    # A sort takes N log N where comparing all pairs takes N^2.
    order = jnp.lexsort((ids, _failures_last(losses), *genomes.T))
    return repeats(genomes, order)


def _failures_last(losses: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(losses), losses, jnp.inf)
