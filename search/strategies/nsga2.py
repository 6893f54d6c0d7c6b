"""NSGA-II: parents and children compete by front, then by crowding."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from search.individuals import (
    Individuals,
    best,
    copies,
    merge,
    start_of,
    without_copies,
)
from search.operators.initial_population import SHARE, check_rates, first_population
from search.operators.vary import check_ordered, vary_integers
from search.order import stable_order
from search.types import Genes, Strategy

Draw = Callable[[jax.Array], jax.Array]
Vary = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def nsga2(
    genes: Genes,
    *,
    objectives: int,
    population: int = 50,
    crossover_rate: float = 0.9,
    mutation_rate: float | None = None,
    ordered: np.ndarray | None = None,
    distinct: bool = True,
    seeds: jax.Array | None = None,
    stratum: int | None = None,
    proposals: jax.Array | None = None,
    share: float = SHARE,
) -> Strategy[Individuals]:
    """NSGA-II (Deb et al. 2002) on integer genomes, varied as `vary_integers` does.

    Args:
      genes: the space.
      objectives: M, how many it is told.
      population: B, individuals asked at once, and how many survive.
      crossover_rate: how likely a child mixes its parents.
      mutation_rate: how likely each gene changes; 1/G if None.
      ordered: bool[G], genes whose choices are in an order; None for none.
      distinct: see `nsga2_with`.
      seeds, stratum, proposals, share: of a first population, see
        `first_population`.

    Raises:
      ValueError: an argument is out of its range.
    """
    rate = 1 / genes.cardinality.size if mutation_rate is None else mutation_rate
    check_rates(crossover_rate=crossover_rate, mutation_rate=rate)
    in_order = check_ordered(ordered, genes)
    fresh = first_population(
        genes,
        population,
        seeds=seeds,
        stratum=stratum,
        rate=rate,
        ordered=in_order,
        proposals=proposals,
        share=share,
    )
    vary = functools.partial(
        vary_integers,
        genes=genes,
        ordered=in_order,
        crossover_rate=crossover_rate,
        mutation_rate=rate,
    )
    return nsga2_with(fresh, vary, objectives=objectives, distinct=distinct)


def nsga2_with(
    first: Draw, vary: Vary, *, objectives: int, distinct: bool = True
) -> Strategy[Individuals]:
    """NSGA-II (Deb et al. 2002) on genomes of any kind, integers or reals.

    The state is the surviving population, best first by non-dominated rank,
    crowding distance and id. A parent is the better of two drawn from it. Until
    something has succeeded `ask` draws a first population.

    Args:
      first: key -> [B, G], the first population.
      vary: (key, [G], [G]) -> [G], a child of two parents.
      objectives: M, how many it is told.
      distinct: of equal genomes only one survives, and children that are new
        are asked first, out of twice as many as are needed.
    """
    if objectives < 1:
        raise ValueError(f"objectives must be at least 1, got {objectives}")
    population = jax.eval_shape(first, jax.random.key(0)).shape[0]

    def init(key: jax.Array) -> Individuals:
        del key  # nothing is drawn before the first ask
        return start_of(first, population, objectives)

    def breed(key: jax.Array, state: Individuals) -> jax.Array:
        for_parents, for_children = jax.random.split(key)
        number = 2 * population if distinct else population
        # The first is better. Two candidates for each of two parents.
        candidates = jax.random.randint(
            for_parents, (2, 2, number), 0, jnp.maximum(state.used.sum(), 1)
        )
        mothers, fathers = state.genomes[candidates.min(axis=0)]
        keys = jax.random.split(for_children, number)
        children = jax.vmap(vary)(keys, mothers, fathers)
        return new_first(state, children)[:population] if distinct else children

    def ask(key: jax.Array, state: Individuals) -> jax.Array:
        for_first, for_children = jax.random.split(key)
        return jax.lax.cond(
            state.used.any(),
            lambda: breed(for_children, state),
            lambda: first(for_first),
        )

    def tell(
        state: Individuals,
        ids: jax.Array,
        genomes: jax.Array,
        objectives: jax.Array,
        mask: jax.Array,
    ) -> Individuals:
        rows = merge(state, ids, genomes, objectives, mask)
        return best(without_copies(rows) if distinct else rows, population)

    return Strategy(init, ask, tell)


def new_first(state: Individuals, children: jax.Array) -> jax.Array:
    """[K, G] -> [K, G], copies of each other or of the state come last."""
    # A free place is no genome: the best stands there once more.
    known = jnp.where(state.used[:, None], state.genomes, state.genomes[:1])
    both = jnp.concatenate([known, children])
    old = copies(both)[len(state.genomes) :]
    return children[stable_order(old.astype(jnp.int32))]
