"""Hypervolume seen along rays from the reference point."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri


def draw_rays(key: jax.Array, number: int, objectives: int) -> jax.Array:
    """f32[number, objectives], directions spread over the positive orthant.

    Uniform on the sphere: the signs of normal draws do not count. The draws come
    of an additive recurrence with a random start, so that they lie evenly.
    """
    # The positive root of x^(d + 1) = x + 1; the golden ratio where d is 1.
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (objectives + 1))
    steps = root ** -np.arange(1.0, objectives + 1)
    places = np.arange(1, number + 1)[:, None] * steps[None] % 1.0
    start = jax.random.uniform(key, (1, objectives))
    even = (places.astype(np.float32) + start) % 1.0
    normal = ndtri(0.5 + 0.5 * jnp.clip(even, 1e-4, 1 - 1e-4))
    return normal / jnp.linalg.norm(normal, axis=1, keepdims=True)


def lengths(objectives: jax.Array, reference: jax.Array, rays: jax.Array) -> jax.Array:
    """How far along each ray a point dominates, from the reference on.

    The hypervolume scalarization of Golovin & Zhang (2020, arXiv:2006.04655): the
    mean over rays of the longest to the power M is the hypervolume, but for a
    constant.

    Args:
      objectives: f32[N, M], minimised.
      reference: f32[M].
      rays: f32[R, M], positive, of length 1.

    Returns:
      f32[R, N], 0 for a point that does not dominate the reference.
    """
    room = jnp.maximum(reference[None] - objectives, 0.0)
    along = [room[None, :, m] / rays[:, m, None] for m in range(room.shape[1])]
    return jnp.min(jnp.stack(along), axis=0)


def volume_of(longest: jax.Array, objectives: int) -> jax.Array:
    """f32[R] lengths -> f32[], the hypervolume of what they are the longest of."""
    ball = math.pi ** (objectives / 2) / math.gamma(objectives / 2 + 1)
    return ball / 2**objectives * (longest**objectives).mean()
