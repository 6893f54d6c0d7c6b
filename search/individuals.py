"""Individuals in rows, as multi-objective strategies keep them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from search.hashing import hashed
from search.order import repeats, stable_order
from search.pareto.crowding import crowded_order
from search.pareto.dominance import failed

NO_ID = np.int32(2**31 - 1)  # of a free place, after all others


class Individuals(NamedTuple):
    """N individuals that succeeded, and free places."""

    genomes: jax.Array  # [N, G], zeros in a free place
    objectives: jax.Array  # f32[N, M], inf in a free place
    ids: jax.Array  # i32[N]

    @property
    def used(self) -> jax.Array:
        """bool[N], False for a free place."""
        return self.ids != NO_ID


def free_places(genomes: jax.Array, objectives: int) -> Individuals:
    """As many free places as there are genomes [N, G], of the same type."""
    number = genomes.shape[0]
    return Individuals(
        genomes=jnp.zeros_like(genomes),
        objectives=jnp.full((number, objectives), jnp.inf, jnp.float32),
        ids=jnp.full(number, NO_ID),
    )


def start_of(
    first: Callable[[jax.Array], jax.Array], number: int, objectives: int
) -> Individuals:
    """Free places for genomes like those that `first` draws, key -> [B, G]."""
    like = jax.eval_shape(first, jax.random.key(0))
    genomes = jnp.zeros((number, *like.shape[1:]), like.dtype)
    return free_places(genomes, objectives)


def keep(rows: Individuals, which: jax.Array) -> Individuals:
    """Frees the places where bool[N] `which` is False."""
    free = free_places(rows.genomes, rows.objectives.shape[1])
    choose = lambda row, none: jnp.where(
        which.reshape(-1, *[1] * (row.ndim - 1)), row, none
    )
    return jax.tree.map(choose, rows, free)


def take(rows: Individuals, places: jax.Array) -> Individuals:
    """The rows at i32[K] places."""
    return jax.tree.map(lambda column: column[places], rows)


def merge(
    known: Individuals,
    ids: jax.Array,
    genomes: jax.Array,
    objectives: jax.Array,
    mask: jax.Array,
) -> Individuals:
    """The known and those told that succeeded, in the order of their ids.

    So whatever is done with them next does not depend on the order of telling.
    """
    told = Individuals(genomes, jnp.asarray(objectives, jnp.float32), ids)
    told = keep(told, mask & ~failed(objectives))
    rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), known, told)
    return take(rows, stable_order(rows.ids))


def copies(genomes: jax.Array) -> jax.Array:
    """[N, G] -> bool[N], True for all rows of a genome but the first.

    Sorted by two hashes: a copy is missed if 64 bits agree by chance.
    """
    # Copies meet, in their order.
    order = stable_order(
        *(jax.vmap(lambda row, s=s: hashed(row, s))(genomes) for s in (0, 1))
    )
    return repeats(genomes, order)


def among(genomes: jax.Array, others: jax.Array) -> jax.Array:
    """[P, G], [N, G] -> bool[P], True for those that are also among the others."""
    return (genomes[:, None] == others[None]).all(axis=2).any(axis=1)


def without_copies(rows: Individuals) -> Individuals:
    """Frees all places of a genome but the first; free ones must be last."""
    return keep(rows, ~copies(rows.genomes))


def best(rows: Individuals, number: int) -> Individuals:
    """The best by rank, then crowding distance, then place, in that order."""
    return take(rows, crowded_order(rows.objectives, number)[:number])
