"""Crowding distance of the individuals on a front."""

import jax
import jax.numpy as jnp

from search.order import stable_order
from search.pareto.dominance import failed
from search.pareto.ranks import non_dominated_ranks


def crowding_distance(objectives: jax.Array, ranks: jax.Array) -> jax.Array:
    """Crowding distance within each front (Deb et al. 2002, NSGA-II).

    The sum over objectives of the gap between both neighbours, as a share of
    the front's width. Those at an end of a front have inf. An objective that
    does not vary on a front adds nothing, and has no ends.

    Args:
      objectives: f32[N, M].
      ranks: i32[N], which front each is on.

    Returns:
      f32[N], 0 for those that failed. Of equals the later rows count as larger.
    """
    along = jax.vmap(_shares_along, (1, None))
    distance = along(objectives, ranks).sum(axis=0)
    return jnp.where(failed(objectives), 0.0, distance)


def crowded_order(objectives: jax.Array, enough: int | None = None) -> jax.Array:
    """f32[N, M] -> i32[N], the best first: by rank, crowding distance, place.

    Args:
      objectives: minimised; those that failed come last.
      enough: how many of the first must be in order.
    """
    ranks = non_dominated_ranks(objectives, enough)
    return stable_order(ranks, -crowding_distance(objectives, ranks))


def _shares_along(column: jax.Array, ranks: jax.Array) -> jax.Array:
    """f32[N], i32[N] -> f32[N], one objective's part of the distance."""
    index = jnp.arange(len(column), dtype=jnp.int32)
    order = stable_order(ranks, column)
    front, value = ranks[order], column[order]
    begins = jnp.concatenate([jnp.ones(1, bool), front[1:] != front[:-1]])
    ends = jnp.roll(begins, -1)
    first = jax.lax.cummax(jnp.where(begins, index, 0))
    last = jax.lax.cummin(jnp.where(ends, index, len(column) - 1), reverse=True)
    width = value[last] - value[first]
    gap = jnp.roll(value, -1) - jnp.roll(value, 1)
    gap = jnp.where(begins | ends, jnp.inf, gap)
    share = jnp.where(width > 0, gap / width, 0.0)
    return jnp.zeros_like(column).at[order].set(share)
