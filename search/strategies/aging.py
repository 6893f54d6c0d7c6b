"""Aging evolution: the oldest goes, however good."""

import jax
import jax.numpy as jnp
import numpy as np

from search.individuals import (
    NO_ID,
    Individuals,
    among,
    best,
    merge,
    start_of,
    take,
)
from search.operators.initial_population import SHARE, first_population, proposed
from search.operators.mutate import change_one
from search.operators.select import tournament
from search.types import Genes, Strategy


def aging(
    genes: Genes,
    *,
    objectives: int,
    population: int = 50,
    population_size: int = 100,
    sample_size: int = 25,
    ordered: np.ndarray | None = None,
    seeds: jax.Array | None = None,
    stratum: int | None = None,
    proposals: jax.Array | None = None,
    share: float = SHARE,
) -> Strategy[Individuals]:
    """Regularised evolution (Real et al. 2019, arXiv:1802.01548), batched.

    The state is the `population_size` youngest that succeeded, best first by
    non-dominated rank, crowding distance and id; with one objective that is the
    order of the paper. Each child is the best of `sample_size` drawn from them with
    one gene changed. `ask` draws first populations until all places are taken.

    Args:
      genes: the space.
      objectives: M, how many it is told.
      population: B, individuals asked at once.
      population_size: how many are kept, at least 1.
      sample_size: candidates for each parent, all distinct; at most
        `population_size`.
      ordered: bool[G], genes whose choices are in an order; None for none.
      seeds, stratum, proposals, share: of a first population, see
        `first_population`.

    Raises:
      ValueError: an argument is out of its range.
    """
    if objectives < 1:
        raise ValueError(f"objectives must be at least 1, got {objectives}")
    if not 1 <= sample_size <= population_size:
        raise ValueError(
            f"sample_size must be in 1 to {population_size=}, got {sample_size}"
        )
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

    listed = proposed(genes, proposals)

    def init(key: jax.Array) -> Individuals:
        del key  # nothing is drawn before the first ask
        return start_of(first, population_size, objectives)

    def child(key: jax.Array, state: Individuals) -> jax.Array:
        choose, change = jax.random.split(key)
        order = jnp.arange(population_size, dtype=jnp.float32)
        return change_one(
            change, state.genomes[tournament(choose, order, sample_size)], genes
        )

    def ask(key: jax.Array, state: Individuals) -> jax.Array:
        for_first, for_children = jax.random.split(key)
        there = jnp.where(state.used[:, None], state.genomes, -1)
        return jax.lax.cond(
            state.used.all(),
            lambda: jax.vmap(child, (0, None))(
                jax.random.split(for_children, population), state
            ),
            lambda: first(for_first, among(listed, there)),
        )

    def tell(
        state: Individuals,
        ids: jax.Array,
        genomes: jax.Array,
        objectives: jax.Array,
        mask: jax.Array,
    ) -> Individuals:
        rows = merge(state, ids, genomes, objectives, mask)
        # Free places count as the oldest, before those of an earlier run (ids < 0).
        age = jnp.argsort(jnp.where(rows.used, -rows.ids, NO_ID))
        youngest = take(rows, jnp.sort(age[:population_size]))
        return best(youngest, population_size)

    return Strategy(init, ask, tell)
