"""Hypervolume seen along rays from the reference point, for any M."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from search.pareto.dominance import failed, non_dominated

MARGIN = 0.1  # of the front's width, how far behind it the reference lies


class View(NamedTuple):
    """A front seen from behind: its reference point, and rays towards it."""

    reference: jax.Array  # f32[M]
    width: jax.Array  # f32[M], of the front
    rays: jax.Array  # f32[R, M], positive, of length 1

    def reach(self, objectives: jax.Array) -> jax.Array:
        """f32[N, M] -> f32[R, N], how far along each ray a point dominates."""
        return lengths(
            objectives / self.width[None], self.reference / self.width, self.rays
        )


def view_of(key: jax.Array, objectives: jax.Array, number: int) -> View:
    """The front of f32[N, M], which may hold failures, along R = number rays.

    Where the front is one point in an objective, it is as wide as all that
    succeeded; where these are, 1.
    """
    low, high = _range(objectives, ~failed(objectives))
    best, worst = _range(objectives, non_dominated(objectives))
    width = jnp.where(worst > best, worst - best, high - low)
    width = jnp.where(width > 0, width, 1.0)
    rays = draw_rays(key, number, objectives.shape[1])
    return View(worst + MARGIN * width, width, rays)


def _range(objectives: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """f32[M] twice, the least and the greatest of the rows."""
    rows = rows[:, None]
    least = jnp.where(rows, objectives, jnp.inf).min(axis=0)
    return least, jnp.where(rows, objectives, -jnp.inf).max(axis=0)


def draw_rays(key: jax.Array, number: int, objectives: int) -> jax.Array:
    """f32[number, objectives], directions spread over the positive orthant.

    Each is uniform on the sphere: normal draws without their signs. All lie evenly:
    the draws come of an additive recurrence (Roberts 2018, R_d) with a random start.
    """
    root = 2.0
    for _ in range(64):  # to the root of x^(M + 1) = x + 1
        root = (1 + root) ** (1 / (objectives + 1))
    steps = root ** -np.arange(1.0, objectives + 1)
    places = np.arange(1, number + 1)[:, None] * steps[None] % 1.0
    start = jax.random.uniform(key, (1, objectives))
    even = (places.astype(np.float32) + start) % 1.0
    normal = ndtri(0.5 + 0.5 * jnp.clip(even, 1e-4, 1 - 1e-4))
    return normal / jnp.linalg.norm(normal, axis=1, keepdims=True)


def lengths(objectives: jax.Array, reference: jax.Array, rays: jax.Array) -> jax.Array:
    """How far along each ray a point dominates, from the reference on.

    The hypervolume scalarization (Golovin & Zhang 2020, arXiv:2006.04655).

    Args:
      objectives: f32[N, M], minimised.
      reference: f32[M].
      rays: f32[R, M], positive, of length 1.

    Returns:
      f32[R, N], 0 for a point that failed or does not dominate the reference.
    """
    inside = ~failed(objectives)[:, None]
    room = jnp.where(inside, reference[None] - objectives, 0.0)
    along = [room[None, :, m] / rays[:, m, None] for m in range(room.shape[1])]
    return jnp.maximum(jnp.min(jnp.stack(along), axis=0), 0.0)


def volume(longest: jax.Array, objectives: int) -> jax.Array:
    """f32[R, ...] -> f32[...], the hypervolume of what reaches that far.

    The part of a ball in the positive orthant, averaged over its directions.
    """
    return _orthant(objectives) * (longest**objectives).mean(axis=0)


def gains(reach: jax.Array, longest: jax.Array, objectives: int) -> jax.Array:
    """How much hypervolume each point adds to what reaches `longest` already.

    Args:
      reach: f32[R, N], of the points.
      longest: f32[R].
      objectives: M.

    Returns:
      f32[N].
    """
    longest = longest[:, None]
    # Ray by ray: a point that adds nothing adds 0, whatever sums are rounded to.
    more = jnp.maximum(reach, longest) ** objectives - longest**objectives
    return _orthant(objectives) * more.mean(axis=0)


def _orthant(objectives: int) -> float:
    """The volume of a ball of radius 1 in the positive orthant."""
    ball = math.pi ** (objectives / 2) / math.gamma(objectives / 2 + 1)
    return ball / 2**objectives
