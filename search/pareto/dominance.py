"""Pareto dominance, objectives minimised."""

import jax
import jax.numpy as jnp


def failed(objectives: jax.Array) -> jax.Array:
    """f32[..., M] -> bool[...]: an objective is NaN or infinite."""
    return ~jnp.isfinite(objectives).all(axis=-1)


def dominates(first: jax.Array, second: jax.Array) -> jax.Array:
    """f32[M], f32[M] -> bool[]: nowhere worse and somewhere better.

    The failed dominate nothing and are dominated by all that succeeded.
    """
    better = (first <= second).all() & (first < second).any()
    return ~failed(first) & (failed(second) | better)


def non_dominated(objectives: jax.Array) -> jax.Array:
    """f32[N, M] -> bool[N]: the Pareto front; of equals, all are on it.

    Takes O(N^2 M) time and memory. What failed is never on the front.
    """
    over = jax.vmap(jax.vmap(dominates, (None, 0)), (0, None))
    return ~over(objectives, objectives).any(axis=0) & ~failed(objectives)
