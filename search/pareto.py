"""Pareto dominance, objectives minimised."""

import jax
import jax.numpy as jnp


def dominates(first: jax.Array, second: jax.Array) -> jax.Array:
    """f32[M], f32[M] -> bool[]: nowhere worse and somewhere better.

    A NaN objective is worse than everything: the failed dominate nothing and
    are dominated by all that succeeded.
    """
    first, second = (jnp.nan_to_num(x, nan=jnp.inf) for x in (first, second))
    return (first <= second).all() & (first < second).any()


def non_dominated(objectives: jax.Array) -> jax.Array:
    """f32[N, M] -> bool[N]: the Pareto front; of equals, all are on it.

    Takes O(N^2 M) time and memory. A row with a NaN is never on the front.
    """
    over = jax.vmap(jax.vmap(dominates, (None, 0)), (0, None))
    dominated = over(objectives, objectives).any(axis=0)
    return ~dominated & ~jnp.isnan(objectives).any(axis=1)
