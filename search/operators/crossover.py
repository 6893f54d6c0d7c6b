"""Crossover: one child of two parents."""

import jax
import jax.numpy as jnp

from search.types import Genes


def two_point(
    key: jax.Array,
    first: jax.Array,
    second: jax.Array,
    genes: Genes,
    rate: float = 0.7,
) -> jax.Array:
    """Two-point crossover (De Jong 1975): a segment of the first gives way.

    With probability `rate` the child has genes [start, end) of the second
    parent, each of the G(G+1)/2 segments equally likely, all G genes too; else
    it is the first parent. Then it is repaired, which may change any gene.

    Args:
      key: PRNG key, consumed.
      first: i32[G], within bounds.
      second: i32[G], within bounds.
      genes: the space.
      rate: in [0, 1].

    Returns:
      i32[G], always valid.
    """
    whether, where = jax.random.split(key)
    length = first.shape[0]
    # Two distinct cuts among the G+1 places around the genes. The second lies
    # 1 to G places from the first around a ring, so every pair has one chance.
    least = jnp.array([0, 1])
    cut, distance = jax.random.randint(where, (2,), least, length + 1)
    other = (cut + distance) % (length + 1)
    index = jnp.arange(length)
    segment = (index >= jnp.minimum(cut, other)) & (index < jnp.maximum(cut, other))
    crossed = jax.random.bernoulli(whether, rate)
    return genes.repair(jnp.where(segment & crossed, second, first))


def uniform_crossover(
    key: jax.Array,
    first: jax.Array,
    second: jax.Array,
    genes: Genes,
    rate: float = 0.9,
) -> jax.Array:
    """Uniform crossover (Syswerda 1989): each gene is of either parent.

    Args:
      key: PRNG key, consumed.
      first: i32[G], within bounds.
      second: i32[G], within bounds.
      genes: the space.
      rate: in [0, 1], how likely they are crossed; else the child is the first.

    Returns:
      i32[G], always valid.
    """
    whether, which = jax.random.split(key)
    crossed = jax.random.bernoulli(whether, rate)
    swapped = jax.random.bernoulli(which, 0.5, first.shape)
    return genes.repair(jnp.where(swapped & crossed, second, first))
