"""Many searches at once, each for the best genome in its own direction."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

# Genomes, and their scores.
_Best: TypeAlias = tuple[jax.Array, jax.Array]


def best_of_each(
    key: jax.Array,
    parents: jax.Array,
    vary: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    score: Callable[[jax.Array], jax.Array],
    *,
    steps: int,
    children: int,
) -> jax.Array:
    """Evolution by decomposition (Zhang & Li 2007, MOEA/D) on a cheap score.

    At each step every genome has children with any of the others, and each of the R
    directions takes the best of all children. The parents themselves take no part.

    Args:
      key: PRNG key, consumed.
      parents: i32[R, G], one for each direction.
      vary: (key, i32[K, G], i32[K, G]) -> i32[K, G], children of two parents each.
      score: i32[K, G] -> f32[R, K], higher is better, -inf for what may not be.
      steps: at least 1.
      children: of each genome, at each step.

    Returns:
      i32[R, G]; where nothing was allowed, the parent.
    """
    number = len(parents)

    def step(carry: _Best, key: jax.Array) -> tuple[_Best, None]:
        pool, best = carry
        for_fathers, for_children = jax.random.split(key)
        mothers = jnp.repeat(pool, children, axis=0)
        fathers = jax.random.randint(for_fathers, (number * children,), 0, number)
        new = vary(for_children, mothers, pool[fathers])
        scores = score(new)
        better = scores.max(axis=1) > best
        pool = jnp.where(better[:, None], new[scores.argmax(axis=1)], pool)
        return (pool, jnp.maximum(best, scores.max(axis=1))), None

    start = parents, jnp.full(number, -jnp.inf)
    return jax.lax.scan(step, start, jax.random.split(key, steps))[0][0]
