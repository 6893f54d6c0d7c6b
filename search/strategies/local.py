"""Local search: look at the neighbours of what is best."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from search.hashing import is_told, remember
from search.individuals import (
    Individuals,
    best,
    copies,
    keep,
    merge,
    start_of,
    without_copies,
)
from search.limits import unlimited
from search.operators.initial_population import SHARE, first_population, proposed
from search.pareto.dominance import non_dominated
from search.types import Genes, Strategy

MEMORY = 2**16  # slots for what was told; two genomes may share one


class LocalState(NamedTuple):
    """The front of what was told, and what that was."""

    front: Individuals
    told: jax.Array  # bool[MEMORY], by the hash of a genome


def local(
    genes: Genes,
    *,
    objectives: int,
    population: int = 50,
    archive: int = 100,
    ordered: np.ndarray | None = None,
    canonical: Callable[[jax.Array], jax.Array] = lambda genome: genome,
    seeds: jax.Array | None = None,
    stratum: int | None = None,
    proposals: jax.Array | None = None,
    share: float = SHARE,
) -> Strategy[LocalState]:
    """Local search (White et al. 2020, arXiv:2005.02960) from a Pareto archive.

    The archive holds what nothing told so far dominates, the least crowded of
    it if there is too much, so with one objective this is hill climbing. What is
    asked are neighbours of it, drawn from all that were never told: genomes with
    one gene changed, then repaired, as far as limits allow them. Where too few are
    left it draws a first population anew.

    Args:
      genes: the space.
      objectives: M, how many it is told.
      population: B, individuals asked at once.
      archive: members at most.
      ordered: bool[G], genes whose choices are in an order; None for none.
      canonical: i32[G] -> i32[G], the one genome of all that mean the same, valid
        where the genome is; it is told these.
      seeds, stratum, proposals, share: of a first population, see
        `first_population`.

    Raises:
      ValueError: an argument is out of its range.
    """
    if min(objectives, archive) < 1:
        raise ValueError(f"{objectives=} and {archive=} must be at least 1")
    first = first_population(
        genes,
        population,
        seeds=seeds,
        stratum=stratum,
        rate=1 / genes.cardinality.size,
        ordered=ordered,
        proposals=proposals,
        share=share,
    )
    changes = [
        (gene, choice)
        for gene, choices in enumerate(np.asarray(genes.cardinality).tolist())
        for choice in range(choices)
    ]
    gene, choice = np.asarray(changes, np.int32).T
    listed = jax.jit(jax.vmap(canonical))(proposed(genes, proposals))
    # Neighbours that are not allowed are left out: moved, they would be others'.
    free = unlimited(genes)
    allowed = jax.vmap(genes.valid)

    def neighbours(genome: jax.Array) -> jax.Array:
        """i32[G] -> i32[K, G], one for each choice of each gene."""
        changed = lambda gene, choice: free.repair(genome.at[gene].set(choice))
        return jax.vmap(lambda *one: canonical(changed(*one)))(gene, choice)

    def init(key: jax.Array) -> LocalState:
        del key  # nothing is drawn before the first ask
        front = start_of(first, archive, objectives)
        return LocalState(front, jnp.zeros(MEMORY, bool))

    def ask(key: jax.Array, state: LocalState) -> jax.Array:
        for_first, for_order = jax.random.split(key)
        near = jax.vmap(neighbours)(state.front.genomes)
        there = jnp.repeat(state.front.used, near.shape[1])
        near = near.reshape(-1, near.shape[-1])
        # Those of free places come last: no other is a copy of theirs.
        open_ = there & ~copies(near) & ~is_told(state.told, near)
        open_ &= allowed(near)
        order = jax.random.uniform(for_order, open_.shape)
        chance, chosen = _largest(jnp.where(open_, order, -1.0), population)
        anything = jax.vmap(canonical)(first(for_first, is_told(state.told, listed)))
        return jnp.where((chance >= 0)[:, None], near[chosen], anything)

    def tell(
        state: LocalState,
        ids: jax.Array,
        genomes: jax.Array,
        objectives: jax.Array,
        mask: jax.Array,
    ) -> LocalState:
        rows = without_copies(merge(state.front, ids, genomes, objectives, mask))
        front = best(keep(rows, non_dominated(rows.objectives)), archive)
        return LocalState(front, remember(state.told, genomes, mask))

    return Strategy(init, ask, tell)


def _largest(values: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """The largest of f32[N] and where they are; -1 where there are too few."""
    padded = jnp.pad(values, (0, number), constant_values=-1.0)
    chance, chosen = jax.lax.top_k(padded, number)
    return chance, jnp.minimum(chosen, values.size - 1)
