"""Hypervolume of 2 or 3 minimised objectives, exact up to rounding."""

import jax
import jax.numpy as jnp

from search.pareto.dominance import failed


def hypervolume(objectives: jax.Array, reference: jax.Array) -> jax.Array:
    """The volume between a set and a reference point (Zitzler & Thiele 1998).

    O(N log N) for 2 objectives, O(N^2) time and O(N) memory for 3.

    Args:
      objectives: f32[N, M], minimised, M 2 or 3. Those that failed, and those
        that are not better than the reference everywhere, add nothing.
      reference: f32[M].

    Returns:
      f32[].

    Raises:
      ValueError: M is neither 2 nor 3.
    """
    count = objectives.shape[1]
    if count not in (2, 3):
        raise ValueError(f"hypervolume needs 2 or 3 objectives, got {count}")
    inside = ~failed(objectives) & (objectives < reference[None]).all(axis=1)
    # Lengths from the reference; what adds nothing has none.
    size = jnp.where(inside[:, None], reference[None] - objectives, 0.0)
    return _area(size) if count == 2 else _volume(size)


def hypervolume_contributions(objectives: jax.Array, reference: jax.Array) -> jax.Array:
    """How much less the hypervolume would be without each individual.

    Of equals none adds anything. O(N^2 log N) for 2 objectives, O(N^3) for 3.

    Args:
      objectives: f32[N, M], as for `hypervolume`.
      reference: f32[M].

    Returns:
      f32[N].
    """
    lost = failed(objectives)[:, None]
    rows = jnp.where(lost, reference[None], objectives)

    def added(index: jax.Array) -> jax.Array:
        # Inside its own box, so that no two large volumes are subtracted.
        others = jnp.maximum(rows, rows[index][None]).at[index].set(reference)
        box = jnp.maximum(reference - rows[index], 0.0).prod()
        return jnp.maximum(box - hypervolume(others, reference), 0.0)

    return jax.lax.map(added, jnp.arange(objectives.shape[0]))


def _area(size: jax.Array) -> jax.Array:
    """f32[N, 2] -> f32[], of the union of boxes at the origin."""
    width, height = size[jnp.argsort(-size[:, 0])].T
    # From the widest on, each adds what rises above those before it.
    risen = jnp.diff(jax.lax.cummax(height), prepend=0.0)
    return (width * risen).sum()


def _volume(size: jax.Array) -> jax.Array:
    """f32[N, 3] -> f32[], of the union of boxes at the origin.

    From the deepest box on, the front seen in the plane grows; each layer
    between two depths has the area that it has by then.
    """
    width, height, depth = size[jnp.argsort(-size[:, 2])].T
    steps = jnp.sort(width)
    strips = jnp.diff(steps, prepend=0.0)
    layers = depth - jnp.append(depth[1:], 0.0)

    def grow(
        heights: jax.Array, box: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        width, height, layer = box
        heights = jnp.where(steps <= width, jnp.maximum(heights, height), heights)
        return heights, layer * (heights * strips).sum()

    boxes = width, height, layers
    return jax.lax.scan(grow, jnp.zeros_like(width), boxes)[1].sum()
