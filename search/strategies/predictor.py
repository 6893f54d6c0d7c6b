"""Model-guided search: a regression says where the front may grow."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap

from search.hashing import is_told, remember, slots
from search.individuals import (
    Individuals,
    best,
    copies,
    merge,
    start_of,
    without_copies,
)
from search.operators.crossover import uniform_crossover
from search.operators.initial_population import first_population
from search.operators.mutate import resample
from search.surrogate.hv_scalarization import View, gains, view_of
from search.surrogate.model import Surrogate, surrogate
from search.surrogate.moead import best_of_each
from search.types import Genes, Strategy

MEMORY = 2**18  # slots for what was told; two genomes may share one
RAYS = 256  # directions in which the front may grow
CHILDREN, STEPS = 4, 4  # of each direction's genome, for each place in the batch
DRAWS = 4  # first draws for each place in the batch; those not yet told are taken


# How far the known front and the chosen reach along each ray, what was told, and
# the best genome of each ray.
_Promised: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


class PredictorState(NamedTuple):
    """What succeeded, and all that was told."""

    known: Individuals
    told: jax.Array  # bool[MEMORY], by the hash of a genome


def predictor(
    genes: Genes,
    *,
    objectives: int,
    population: int = 50,
    ordered: np.ndarray | None = None,
    cheap: Callable[[jax.Array], jax.Array] | None = None,
    cheap_columns: tuple[int, ...] = (),
    canonical: Callable[[jax.Array], jax.Array] = lambda genome: genome,
    start: int | None = None,
    capacity: int = 2048,
    seeds: jax.Array | None = None,
    stratum: int | None = None,
) -> Strategy[PredictorState]:
    """Thompson sampling over the front (after Bradford et al. 2018, TSEMO).

    Each place in the batch has a draw of its own from a Bayesian regression on
    genes and pairs of genes (see `regress`). Evolution on the draw looks at four
    thousand genomes that were never told; the one that adds the most hypervolume to
    the known front, and to what the places before it promise, is asked. Until enough
    is known it draws first populations, without what was told as far as it can.

    Args:
      genes: the space.
      objectives: M, how many it is told.
      population: B, individuals asked at once.
      ordered: bool[G], genes whose choices are in an order; None for none.
      cheap: i32[N, G] -> f32[N, K], objectives that need no guess; None for none.
      cheap_columns: K of 0 to M-1, which they are, in this order.
      canonical: i32[G] -> i32[G], the one genome of all that mean the same, valid
        if the genome is; only such are asked. By default each is its own.
      start: how many must be known before the regression guides; G if None.
      capacity: how many are known at most, the best by rank and crowding.
      seeds: i32[S, G], known good genomes; half of a first population is drawn
        near them. None to draw all of it uniformly.
      stratum: a gene whose choices share a first population equally.

    Raises:
      ValueError: an argument is out of its range.
    """
    if min(objectives, capacity) < 1:
        raise ValueError(f"{objectives=} and {capacity=} must be at least 1")
    length = genes.cardinality.size
    enough = length if start is None else start
    if not 1 <= enough <= capacity:
        raise ValueError(f"start must be in 1 to {capacity=}, got {enough}")
    model = surrogate(
        genes,
        objectives=objectives,
        ordered=ordered,
        cheap=cheap,
        cheap_columns=cheap_columns,
    )
    first = first_population(
        genes, DRAWS * population, seeds=seeds, stratum=stratum, rate=1 / length
    )

    def init(key: jax.Array) -> PredictorState:
        del key  # nothing is drawn before the first ask
        known = start_of(first, capacity, objectives)
        return PredictorState(known, jnp.zeros(MEMORY, bool))

    def fresh(key: jax.Array, told: jax.Array) -> jax.Array:
        """Draws i32[population, G]; what was told comes only if too few are new."""
        drawn = jax.vmap(canonical)(first(key))
        return drawn[jnp.argsort(copies(drawn) | is_told(told, drawn))][:population]

    guided = _guided(genes, model, population, canonical, fresh)

    # One search after the other under vmap, to the same bits as each alone.
    @sequential_vmap
    def ask(key: jax.Array, state: PredictorState) -> jax.Array:
        return jax.lax.cond(
            state.known.used.sum() >= enough,
            guided,
            lambda key, state: fresh(key, state.told),
            key,
            state,
        )

    return Strategy(init, ask, functools.partial(_tell, capacity=capacity))


def _tell(
    state: PredictorState,
    ids: jax.Array,
    genomes: jax.Array,
    objectives: jax.Array,
    mask: jax.Array,
    *,
    capacity: int,
) -> PredictorState:
    rows = without_copies(merge(state.known, ids, genomes, objectives, mask))
    told = remember(state.told, genomes, mask)
    return PredictorState(best(rows, capacity), told)


def _guided(
    genes: Genes,
    model: Surrogate,
    population: int,
    canonical: Callable[[jax.Array], jax.Array],
    fresh: Callable[[jax.Array, jax.Array], jax.Array],
) -> Callable[[jax.Array, PredictorState], jax.Array]:
    """How the regression chooses: (key, state) -> i32[population, G]."""
    objectives = len(model.guessed) + len(model.known)
    rate = min(1.0, 1.5 / genes.cardinality.size)

    def vary(key: jax.Array, mother: jax.Array, father: jax.Array) -> jax.Array:
        cross, change = jax.random.split(key)
        child = uniform_crossover(cross, mother, father, genes, 0.3)
        return canonical(resample(change, child, genes, rate))

    def place(
        view: View, carry: _Promised, this: tuple[jax.Array, jax.Array]
    ) -> tuple[_Promised, tuple[jax.Array, jax.Array]]:
        """Finds the genome for one place in the batch: itself, and if it is new."""
        longest, told, pool = carry
        weights, key = this
        reach = lambda genomes: view.reach(model.predict(weights, genomes))
        allowed = lambda genomes, values: jnp.where(
            is_told(told, genomes)[None], -1.0, values
        )
        score = lambda genomes: allowed(genomes, reach(genomes))
        pool = best_of_each(key, pool, vary, score, steps=STEPS, children=CHILDREN)
        reached = reach(pool)
        gain = allowed(pool, gains(reached, longest, objectives)[None])[0]
        chosen = gain.argmax()
        told = told.at[slots(pool[chosen], MEMORY)].set(True)
        longest = jnp.maximum(longest, reached[:, chosen])
        return (longest, told, pool), (pool[chosen], gain[chosen] >= 0)

    def guided(key: jax.Array, state: PredictorState) -> jax.Array:
        for_view, for_draws, for_places, for_rest = jax.random.split(key, 4)
        view = view_of(for_view, state.known.objectives, RAYS)
        reach = view.reach(state.known.objectives)
        parents = state.known.genomes[reach.argmax(axis=1)]
        draws = model.draw(for_draws, state.known, population)
        (_, told, _), (chosen, new) = jax.lax.scan(
            lambda carry, this: place(view, carry, this),
            (reach.max(axis=1), state.told, parents),
            (draws, jax.random.split(for_places, population)),
        )
        return jnp.where(new[:, None], chosen, fresh(for_rest, told))

    return guided
