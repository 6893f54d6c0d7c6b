"""Pareto dominance, objectives minimised."""

import jax
import jax.numpy as jnp


def dominates(first: jax.Array, second: jax.Array) -> jax.Array:
    """f32[M], f32[M] -> bool[]: nowhere worse and somewhere better.

    Who has a NaN objective failed: the failed dominate nothing and are
    dominated by all that succeeded.
    """
    failed = jnp.isnan(first).any(), jnp.isnan(second).any()
    better = (first <= second).all() & (first < second).any()
    return jnp.where(failed[1], ~failed[0], better)


def non_dominated(objectives: jax.Array) -> jax.Array:
    """f32[N, M] -> bool[N]: the Pareto front; of equals, all are on it.

    Takes O(N^2 M) time and memory. A row with a NaN is never on the front.
    """
    over = jax.vmap(jax.vmap(dominates, (None, 0)), (0, None))
    dominated = over(objectives, objectives).any(axis=0)
    return ~dominated & ~jnp.isnan(objectives).any(axis=1)
