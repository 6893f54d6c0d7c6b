"""A whole search in one compiled loop."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from search.types import State, Strategy


class History(NamedTuple):
    """All individuals of T generations, in the order they were asked."""

    genomes: jax.Array  # [T, B, G]
    objectives: jax.Array  # f32[T, B, M]


def simulate(
    strategy: Strategy[State],
    key: jax.Array,
    evaluate: Callable[[jax.Array], jax.Array],
    generations: int,
) -> tuple[State, History]:
    """Runs a search whose objectives can be computed inside `jit`.

    Args:
      strategy: told of every generation at once, ids from 0.
      key: PRNG key, consumed.
      evaluate: [B, G] -> f32[B, M].
      generations: T, at least 1.

    Returns:
      The strategy's last state and the history.
    """
    for_init, for_asks = jax.random.split(key)

    def generation(
        state: State, this: tuple[jax.Array, jax.Array]
    ) -> tuple[State, History]:
        key, number = this
        genomes = strategy.ask(key, state)
        objectives = evaluate(genomes)
        asked = genomes.shape[0]
        ids = number * asked + jnp.arange(asked, dtype=jnp.int32)
        state = strategy.tell(state, ids, genomes, objectives, jnp.ones(asked, bool))
        return state, History(genomes, objectives)

    keys = jax.random.split(for_asks, generations)
    numbers = jnp.arange(generations, dtype=jnp.int32)
    return jax.lax.scan(generation, strategy.init(for_init), (keys, numbers))
