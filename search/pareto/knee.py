"""The point of a front from which any gain costs much."""

import jax
import jax.numpy as jnp

from search.pareto.dominance import non_dominated


def knee_point(objectives: jax.Array) -> jax.Array:
    """The knee of the Pareto front (Das 1999), its lowest index if there are more.

    Each objective is scaled to [0, 1] over the front. The knee lies farthest on
    the good side of the plane through the worst value of each objective, which
    is where the scaled objectives have the smallest sum. An objective that does
    not vary counts nothing.

    Args:
      objectives: f32[N, M], minimised.

    Returns:
      i32[], an index into objectives, -1 if all failed.
    """
    front = non_dominated(objectives)
    low = jnp.where(front[:, None], objectives, jnp.inf).min(axis=0)
    high = jnp.where(front[:, None], objectives, -jnp.inf).max(axis=0)
    width = (high - low)[None]
    scaled = jnp.where(width > 0, (objectives - low[None]) / width, 0.0)
    best = jnp.argmin(jnp.where(front, scaled.sum(axis=1), jnp.inf))
    return jnp.where(front.any(), best, -1).astype(jnp.int32)
