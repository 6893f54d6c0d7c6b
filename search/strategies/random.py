"""Random search without repeats: the baseline of every other strategy."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from search.types import Genes, Strategy
from search.walk import draw_salts, genome_at, walk_length


class RandomState(NamedTuple):
    """How far a walk through the space in random order has come."""

    salts: jax.Array  # u32[R, G], the order
    position: jax.Array  # i32[], of the genome to look at next
    asked: jax.Array  # i32[], valid genomes before it


LOOKS = 2**20  # positions that one ask passes at most

# Genomes found, the position behind them, how many, and how often it looked.
_Walked: TypeAlias = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def random_search(genes: Genes, *, population: int = 50) -> Strategy[RandomState]:
    """Random search (Li & Talwalkar 2019, arXiv:1902.07638) without repeats.

    Walks through the valid genomes in an order that `init` draws. None comes back
    before all have been asked, or 2**30 positions of the walk are past. `tell`
    looks at the ids alone: what is asked next comes after the highest of them.
    `ask` needs no key.

    It takes as long as valid genomes are rare in the space. Where too few of the
    next `LOOKS` positions are valid, the last ones are repaired instead: these may
    come back.

    Args:
      genes: the space; at least one genome is valid.
      population: B, individuals asked at once.

    Raises:
      ValueError: population is less than 1.
    """
    if population < 1:
        raise ValueError(f"population must be at least 1, got {population}")
    cardinality = np.asarray(genes.cardinality)
    length = walk_length(cardinality)

    look = jax.vmap(genome_at, (None, 0, None))
    most = -(-LOOKS // population)

    def walk(state: RandomState, number: int | jax.Array) -> tuple[jax.Array, ...]:
        """Passes that many valid genomes: the first B, where it ends, how many."""
        batches = (number + population - 1) // population

        def going_on(carry: _Walked) -> jax.Array:
            return (carry[2] < number) & (carry[3] < most * batches)

        def step(carry: _Walked) -> _Walked:
            genomes, position, passed, looks = carry
            places = (position + jnp.arange(population)) % length
            looked = look(state.salts, places, cardinality)
            valid = jax.vmap(genes.valid)(looked)
            count = passed + jnp.cumsum(valid)
            slot = jnp.where(valid & (count <= number), count - 1, population)
            genomes = genomes.at[slot].set(looked, mode="drop")
            steps = 1 + (count < number).sum()  # up to the last that is needed
            position = (position + jnp.minimum(steps, population)) % length
            passed = jnp.minimum(count[-1], number)
            return genomes, position, passed, looks + 1

        nothing = jnp.zeros((population, len(cardinality)), jnp.int32)
        start = nothing, state.position, jnp.int32(0), jnp.int32(0)
        return jax.lax.while_loop(going_on, step, start)[:3]

    def init(key: jax.Array) -> RandomState:
        zero = jnp.int32(0)
        return RandomState(draw_salts(key, len(cardinality)), zero, zero)

    def ask(key: jax.Array, state: RandomState) -> jax.Array:
        del key
        genomes, position, found = walk(state, population)
        places = (position + jnp.arange(population)) % length
        others = jax.vmap(genes.repair)(look(state.salts, places, cardinality))
        return jnp.where(jnp.arange(population)[:, None] < found, genomes, others)

    def tell(
        state: RandomState,
        ids: jax.Array,
        genomes: jax.Array,
        objectives: jax.Array,
        mask: jax.Array,
    ) -> RandomState:
        del genomes, objectives
        asked = jnp.where(mask, ids + 1, 0).max(initial=state.asked)
        _, position, _ = walk(state, asked - state.asked)
        return RandomState(state.salts, position, asked)

    return Strategy(init, ask, tell)
