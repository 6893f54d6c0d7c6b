"""A genetic algorithm on one loss, with an elite that survives."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from search.individuals import NO_ID
from search.operators.crossover import two_point
from search.operators.initial_population import SHARE, check_rates, first_population
from search.operators.mutate import resample
from search.operators.select import elite, repeated, tournament
from search.types import Genes, Strategy


class GeneticState(NamedTuple):
    """The E best distinct genomes told so far, best first; free places last."""

    genomes: jax.Array  # i32[E, G], zeros in a free place
    losses: jax.Array  # f32[E], lower is better, inf in a free place
    ids: jax.Array  # i32[E]


def genetic(
    genes: Genes,
    *,
    scalarize: Callable[[jax.Array], jax.Array],
    population: int = 50,
    elite_share: float = 0.2,
    tournament_size: int = 3,
    crossover_rate: float = 0.7,
    mutation_rate: float = 0.3,
    ordered: np.ndarray | None = None,
    seeds: jax.Array | None = None,
    stratum: int | None = None,
    proposals: jax.Array | None = None,
    share: float = SHARE,
) -> Strategy[GeneticState]:
    """Genetic algorithm (Holland 1975) with an elite (De Jong 1975).

    The best E ever told are the parents: each child comes of two distinct ones,
    found by tournament, crossed and mutated. A genome counts once, with its best
    loss. Until something has succeeded `ask` draws fresh genomes.

    Args:
      genes: the space.
      scalarize: f32[N, M] -> f32[N], objectives to one minimised loss, each row
        on its own. A row with a NaN objective or a loss that is not finite failed.
      population: B, individuals asked at once.
      elite_share: E / B, rounded; E is at least 2 (1 if B is 1).
      tournament_size: candidates for each parent; at most as many as there are
        survivors.
      crossover_rate: how likely a child mixes its parents.
      mutation_rate: how likely each gene is redrawn.
      ordered: bool[G], genes whose choices are in an order; None for none.
      seeds, stratum, proposals, share: of a first population, see
        `first_population`.

    Raises:
      ValueError: an argument is out of its range.
    """
    if tournament_size < 1:
        raise ValueError(f"tournament_size must be at least 1, got {tournament_size}")
    check_rates(
        elite_share=elite_share,
        crossover_rate=crossover_rate,
        mutation_rate=mutation_rate,
    )
    fresh = first_population(
        genes,
        population,
        seeds=seeds,
        stratum=stratum,
        rate=mutation_rate,
        ordered=ordered,
        proposals=proposals,
        share=share,
    )
    survivors = min(population, max(2, round(elite_share * population)))

    def init(key: jax.Array) -> GeneticState:
        del key  # nothing is drawn before the first ask
        return GeneticState(
            genomes=jnp.zeros((survivors, *genes.cardinality.shape), jnp.int32),
            losses=jnp.full(survivors, jnp.inf, jnp.float32),
            ids=jnp.full(survivors, NO_ID),
        )

    child = _breeding(genes, tournament_size, crossover_rate, mutation_rate)

    def breed(key: jax.Array, state: GeneticState) -> jax.Array:
        return jax.vmap(child, (0, None))(jax.random.split(key, population), state)

    def ask(key: jax.Array, state: GeneticState) -> jax.Array:
        for_fresh, for_children = jax.random.split(key)
        started = jnp.isfinite(state.losses).any()
        return jnp.where(started, breed(for_children, state), fresh(for_fresh))

    def tell(
        state: GeneticState,
        ids: jax.Array,
        genomes: jax.Array,
        objectives: jax.Array,
        mask: jax.Array,
    ) -> GeneticState:
        counts = mask & ~jnp.isnan(objectives).any(axis=1)
        losses = jnp.where(counts, scalarize(objectives), jnp.inf)
        rows = GeneticState(genomes, losses, ids)
        both = jax.tree.map(lambda *parts: jnp.concatenate(parts), state, rows)
        return _fittest(both, survivors)

    return Strategy(init, ask, tell)


def _breeding(
    genes: Genes, tournament_size: int, crossover_rate: float, mutation_rate: float
) -> Callable[[jax.Array, GeneticState], jax.Array]:
    """How a child is bred: (key, state) -> i32[G]."""

    def child(key: jax.Array, state: GeneticState) -> jax.Array:
        for_first, for_second, cross, change = jax.random.split(key, 4)
        first = tournament(for_first, state.losses, tournament_size)
        others = state.losses.at[first].set(jnp.inf)
        second = tournament(for_second, others, tournament_size)
        # A single survivor has only itself.
        second = jnp.where(jnp.isfinite(others[second]), second, first)
        parents = state.genomes[first], state.genomes[second]
        genome = two_point(cross, *parents, genes, crossover_rate)
        return resample(change, genome, genes, mutation_rate)

    return child


def _fittest(rows: GeneticState, number: int) -> GeneticState:
    """The best distinct genomes of R rows: GeneticState of R -> of number."""
    again = repeated(rows.genomes, rows.losses, rows.ids)
    losses = jnp.where(again, jnp.inf, rows.losses)
    best = elite(losses, rows.ids, number)
    kept = jnp.isfinite(losses[best])
    return GeneticState(
        genomes=jnp.where(kept[:, None], rows.genomes[best], 0),
        losses=jnp.where(kept, losses[best], jnp.inf),
        ids=jnp.where(kept, rows.ids[best], NO_ID),
    )
