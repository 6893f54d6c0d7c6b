"""Model-guided search: a regression says where the front may grow."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap

from search.draws import uniforms
from search.hashing import is_told, remember, slots
from search.individuals import (
    Individuals,
    best,
    copies,
    merge,
    start_of,
    without_copies,
)
from search.limits import unlimited
from search.operators.initial_population import first_population, proposed
from search.surrogate.hv_scalarization import View, gains, view_of
from search.surrogate.model import Surrogate, surrogate
from search.surrogate.moead import best_of_each
from search.surrogate.regression import NOISES
from search.types import Genes, Strategy

START = 10  # known before the regression guides
PROPOSED = 1.0  # share of proposals in a first population
MEMORY = 2**18  # slots for what was told; two genomes may share one
RAYS = 256  # directions in which the front may grow
CHILDREN, STEPS = 4, 4  # of each direction's genome, for each place in the batch
SEARCHES = 64  # side by side, each for the best by its own draw of the weights
SPREAD = 0.3  # of those draws: with all of it few of the best are asked
DRAWS = 4  # first populations drawn, of which what was not yet told is taken
CROSSED, CHANGED = 0.3, 1.5  # chance that a child is crossed; genes of it that change


# How far the known front and the chosen reach along each ray, what was told, and
# the best genome of each ray.
_Promised: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
# Genomes, which of them are new, and the memory of what was told with them in it.
_Asked: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


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
    proposals: jax.Array | None = None,
    share: float = PROPOSED,
    noises: tuple[float, ...] = NOISES,
) -> Strategy[PredictorState]:
    """Asks what a regression expects to add the most hypervolume.

    A Bayesian regression on genes and pairs of genes (see `regress`) is fitted to
    all that is known. For each place in the batch evolution on its mean looks at
    four thousand genomes that were never told; the one that adds the most
    hypervolume to the known front, and to what the places before it promise, is
    asked. Of a lone objective each place asks for what is best by a draw of its own
    of the regression's weights. Until enough is known it goes on through the proposals,
    and draws first populations without what was told as far as it can.

    Args:
      genes: the space.
      objectives: M, how many it is told.
      population: B, individuals asked at once.
      ordered: bool[G], genes whose choices are in an order; None for none.
      cheap: i32[N, G] -> f32[N, K], objectives that need no guess; None for none.
      cheap_columns: K of 0 to M-1, which they are, in this order.
      canonical: i32[G] -> i32[G], the one genome of all that mean the same, valid
        if the genome is; only such are asked. By default each is its own.
      start: how many must be known before the regression guides; if None START, but
        not more than G.
      capacity: how many are known at most, the best by rank and crowding.
      seeds, stratum, proposals, share: of a first population, see
        `first_population`.
      noises: of an objective's variance, what genes may not tell: the likeliest of
        these is taken. One alone is a noise that is known.

    Raises:
      ValueError: an argument is out of its range.
    """
    if min(objectives, capacity) < 1:
        raise ValueError(f"{objectives=} and {capacity=} must be at least 1")
    length = genes.cardinality.size
    enough = min(START, length) if start is None else start
    if not 1 <= enough <= capacity:
        raise ValueError(f"start must be in 1 to {capacity=}, got {enough}")
    model = surrogate(
        genes,
        objectives=objectives,
        ordered=ordered,
        cheap=cheap,
        cheap_columns=cheap_columns,
        noises=noises,
    )
    first = first_population(
        genes,
        population,
        seeds=seeds,
        stratum=stratum,
        rate=1 / length,
        ordered=ordered,
        proposals=proposals,
        share=share,
    )
    listed = jax.jit(jax.vmap(canonical))(proposed(genes, proposals))

    def init(key: jax.Array) -> PredictorState:
        del key  # nothing is drawn before the first ask
        known = start_of(first, capacity, objectives)
        return PredictorState(known, jnp.zeros(MEMORY, bool))

    def fresh(key: jax.Array, told: jax.Array) -> jax.Array:
        """Draws i32[population, G]; what was told comes only if too few are new."""
        keys, old = jax.random.split(key, DRAWS), is_told(told, listed)
        drawn = jax.lax.map(lambda key: jax.vmap(canonical)(first(key, old)), keys)
        rows = drawn.reshape(-1, length)
        again = (copies(rows) | is_told(told, rows)).reshape(DRAWS, population)
        return drawn[again.argmin(axis=0), jnp.arange(population)]

    guide = _guided if objectives > 1 else _guided_by_draws
    guided = guide(genes, model, population, canonical)

    # One search after the other under vmap, to the same bits as each alone.
    @sequential_vmap
    def ask(key: jax.Array, state: PredictorState) -> jax.Array:
        for_guided, for_rest = jax.random.split(key)
        nothing = jnp.zeros((population, length), jnp.int32)
        chosen, new, told = jax.lax.cond(
            state.known.used.sum() >= enough,
            guided,
            lambda key, state: (nothing, jnp.zeros(population, bool), state.told),
            for_guided,
            state,
        )
        return jnp.where(new[:, None], chosen, fresh(for_rest, told))

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
) -> Callable[[jax.Array, PredictorState], _Asked]:
    """How the regression chooses: (key, state) -> genomes, new or not, all told."""
    objectives = len(model.guessed) + len(model.known)
    vary = _variation(genes, canonical)

    def place(
        view: View, weights: jax.Array, carry: _Promised, key: jax.Array
    ) -> tuple[_Promised, tuple[jax.Array, jax.Array]]:
        """Finds the genome for one place in the batch: itself, and if it is new."""
        longest, told, pool = carry
        reach = lambda genomes: view.reach(model.predict(weights, genomes))
        out = lambda genomes: is_told(told, genomes) | ~jax.vmap(genes.valid)(genomes)
        score = lambda genomes: jnp.where(out(genomes)[None], -jnp.inf, reach(genomes))
        pool = best_of_each(key, pool, vary, score, steps=STEPS, children=CHILDREN)
        reached = reach(pool)
        outside = out(pool)
        gain = gains(reached, longest, objectives)
        # Where nothing adds to the front, what falls short of it the least.
        short = (reached - longest[:, None]).max(axis=0)
        worth = jnp.where(gain > 0, gain, jnp.minimum(short, 0.0))
        chosen = jnp.where(outside, -jnp.inf, worth).argmax()
        told = told.at[slots(pool[chosen], MEMORY)].set(True)
        longest = jnp.maximum(longest, reached[:, chosen])
        return (longest, told, pool), (pool[chosen], ~outside[chosen])

    def guided(key: jax.Array, state: PredictorState) -> _Asked:
        for_view, for_places = jax.random.split(key)
        view = view_of(for_view, state.known.objectives, RAYS)
        reach = view.reach(state.known.objectives)
        parents = state.known.genomes[reach.argmax(axis=1)]
        weights = model.fit(state.known)
        (_, told, _), (chosen, new) = jax.lax.scan(
            functools.partial(place, view, weights),
            (reach.max(axis=1), state.told, parents),
            jax.random.split(for_places, population),
        )
        return chosen, new, told

    return guided


def _guided_by_draws(
    genes: Genes,
    model: Surrogate,
    population: int,
    canonical: Callable[[jax.Array], jax.Array],
) -> Callable[[jax.Array, PredictorState], _Asked]:
    """The same of one objective, by Thompson sampling (arXiv:1705.09236).

    Each place has the best genome of its own draw of the regression's weights: draws
    differ where little is known, and so do the genomes.
    """
    vary = _variation(genes, canonical)

    def place(
        weights: jax.Array,
        carry: tuple[jax.Array, jax.Array],
        this: tuple[jax.Array, jax.Array],
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        (told, pool), (draw, key) = carry, this
        out = lambda genomes: is_told(told, genomes) | ~jax.vmap(genes.valid)(genomes)
        score = lambda genomes: _promised(model, weights, genomes, out(genomes))
        pool = best_of_each(key, pool, vary, score, steps=STEPS, children=CHILDREN)
        chosen = pool[draw]
        new = ~out(chosen[None])[0]
        return (told.at[slots(chosen, MEMORY)].set(True), pool), (chosen, new)

    def guided(key: jax.Array, state: PredictorState) -> _Asked:
        for_draws, for_places = jax.random.split(key)
        known = state.known
        weights = model.draw(for_draws, known, max(SEARCHES, population), SPREAD)
        best = _promised(model, weights, known.genomes, ~known.used).argmax(axis=1)
        (told, _), (chosen, new) = jax.lax.scan(
            functools.partial(place, weights),
            (state.told, known.genomes[best]),
            (jnp.arange(population), jax.random.split(for_places, population)),
        )
        return chosen, new, told

    return guided


def _promised(
    model: Surrogate, weights: jax.Array, genomes: jax.Array, out: jax.Array
) -> jax.Array:
    """f32[R, D] and i32[N, G] -> f32[R, N], higher is better; -inf where bool[N]."""
    main = model.columns.main(genomes)
    guesses = jax.vmap(model.columns.apply, (0, None))(weights, main)
    return jnp.where(out[None], -jnp.inf, -guesses)


def _variation(
    genes: Genes, canonical: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """What evolution makes of mothers and fathers; the score knows what is allowed."""
    free = unlimited(genes)  # a repair to what is allowed costs more
    return lambda key, mothers, fathers: jax.vmap(canonical)(
        _children(key, mothers, fathers, free)
    )


def _children(
    key: jax.Array, mothers: jax.Array, fathers: jax.Array, genes: Genes
) -> jax.Array:
    """i32[K, G], i32[K, G] -> i32[K, G]: uniform crossover, then some genes redrawn.

    As `uniform_crossover` and `resample`, of all children in one draw.
    """
    number, length = mothers.shape
    chances = uniforms(key, (3 * length + 1, number)).T
    crossed, others = chances[:, :1] < CROSSED, chances[:, 1:]
    half, redrawn, where = others.reshape(number, 3, length).swapaxes(0, 1)
    child = jnp.where(crossed & (half < 0.5), fathers, mothers)
    cardinality = jnp.asarray(genes.cardinality)[None]
    # 1 to n-1 places around a ring of n choices never ends at the start.
    offset = 1 + jnp.floor(where * (cardinality - 1)).astype(jnp.int32)
    changed = (child + offset) % cardinality
    rate = min(1.0, CHANGED / length)
    return jax.vmap(genes.repair)(jnp.where(redrawn < rate, changed, child))
