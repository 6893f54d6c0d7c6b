"""Model-guided search: a regression says where the front may grow."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap

from search.crossover import uniform_crossover
from search.effects import effects
from search.first import first_population
from search.hashing import hashed
from search.individuals import (
    Individuals,
    best,
    copies,
    merge,
    start_of,
    without_copies,
)
from search.mutate import resample
from search.pareto import non_dominated
from search.rays import draw_rays, lengths
from search.regression import regress
from search.types import Genes, Strategy

MEMORY = 2**18  # places for what was told; two genomes may share one
RAYS = 256
CHILDREN = 8  # of each ray's candidate, at each step
STEPS = 5  # for each place in the batch
MARGIN = 0.1  # of the front's width, how far behind it the reference lies


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
    start: int | None = None,
    capacity: int = 2048,
    seeds: jax.Array | None = None,
    stratum: int | None = None,
) -> Strategy[PredictorState]:
    length = genes.cardinality.size
    in_order = np.zeros(length, bool) if ordered is None else np.asarray(ordered)
    columns = effects(np.asarray(genes.cardinality), in_order)
    guessed = [m for m in range(objectives) if m not in cheap_columns]
    fresh = first_population(
        genes, 4 * population, seeds=seeds, stratum=stratum, rate=1 / length
    )
    enough = 2 * length if start is None else start

    def init(key):
        del key  # nothing is drawn before the first ask
        return PredictorState(start_of(fresh, capacity, objectives), jnp.zeros(MEMORY, bool))

    def new(told, genomes):
        return ~told[jax.vmap(_slot)(genomes)]

    def anywhere(key, told):
        drawn = fresh(key)
        last = copies(drawn) | ~new(told, drawn)
        return drawn[jnp.argsort(last)][:population]

    def predict(weights, genomes):
        """f32[K, D], i32[N, G] -> f32[N, M]."""
        main = columns.main(genomes)
        found = jnp.zeros((len(genomes), objectives))
        for place, column in enumerate(guessed):
            found = found.at[:, column].set(columns.apply(weights[place], main))
        if cheap is not None:
            found = found.at[:, np.asarray(cheap_columns)].set(cheap(genomes))
        return found

    def child(key, mother, pool):
        for_father, cross, change = jax.random.split(key, 3)
        father = pool[jax.random.randint(for_father, (), 0, len(pool))]
        both = uniform_crossover(cross, mother, father, genes, 0.3)
        return resample(change, both, genes, 1.5 / length)

    @sequential_vmap
    def guided(key, state):
        for_rays, for_draws, for_moves, for_rest = jax.random.split(key, 4)
        known = state.known
        front = non_dominated(known.objectives)[:, None]
        ideal = jnp.where(front, known.objectives, jnp.inf).min(axis=0)
        nadir = jnp.where(front, known.objectives, -jnp.inf).max(axis=0)
        width = jnp.where(nadir > ideal, nadir - ideal, 1.0)
        scaled = lambda found: (found - ideal[None]) / width[None]
        reference = jnp.full(objectives, 1 + MARGIN)
        rays = draw_rays(for_rays, RAYS, objectives)
        reach = lambda found: lengths(scaled(found), reference, rays)
        held = reach(known.objectives)
        fits = [
            regress(columns, known.genomes, known.objectives[:, m], known.used)
            for m in guessed
        ]
        keys = jax.random.split(for_draws, (len(guessed), population))
        draws = jnp.stack([jax.vmap(fit.draw)(k) for fit, k in zip(fits, keys)], 1)

        def place(carry, this):
            longest, told, pool = carry
            weights, key = this

            def step(carry, key):
                pool, value = carry
                keys = jax.random.split(key, (RAYS, CHILDREN))
                children = jax.vmap(jax.vmap(child, (0, None, None)), (0, 0, None))(keys, pool, pool)
                children = children.reshape(-1, length)
                found = reach(predict(weights, children))
                found = jnp.where(new(told, children)[None], found, -1.0)
                one = found.argmax(axis=1)
                top = found.max(axis=1)
                better = top > value
                return (jnp.where(better[:, None], children[one], pool), jnp.maximum(top, value)), None

            begin = pool, jnp.full(RAYS, -1.0)
            (pool, _), _ = jax.lax.scan(step, begin, jax.random.split(key, STEPS))
            found = reach(predict(weights, pool))
            gain = jnp.maximum(found**objectives - (longest**objectives)[:, None], 0).sum(axis=0)
            gain = jnp.where(new(told, pool), gain, -1.0)
            one = gain.argmax()
            longest = jnp.maximum(longest, found[:, one])
            told = told.at[_slot(pool[one])].set(True)
            return (longest, told, pool), (pool[one], gain[one])

        begin = held.max(axis=1), state.told, known.genomes[held.argmax(axis=1)]
        (_, told, _), (chosen, gain) = jax.lax.scan(
            place, begin, (draws, jax.random.split(for_moves, population))
        )
        return jnp.where((gain >= 0)[:, None], chosen, anywhere(for_rest, told))

    def ask(key, state):
        return jax.lax.cond(
            state.known.used.sum() >= enough,
            guided,
            lambda key, state: anywhere(key, state.told),
            key,
            state,
        )

    def tell(state, ids, genomes, objectives, mask):
        known = without_copies(merge(state.known, ids, genomes, objectives, mask))
        slots = jnp.where(mask, jax.vmap(_slot)(genomes), MEMORY)
        told = state.told.at[slots].set(True, mode="drop")
        return PredictorState(best(known, capacity), told)

    return Strategy(init, ask, tell)


def _slot(genome):
    return hashed(genome) % MEMORY
