"""A strategy by its name, of whatever is known of the space and the objectives."""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig
from arch.baselines import BASELINES
from arch.space import Space
from jaxnas.analytic.cost_table import CostTable, front_genomes
from jaxnas.config import Settings
from jaxnas.evaluation.fitness import OBJECTIVES, FitnessSettings, fitness
from jaxnas.keys import key_of
from jaxnas.presets import STRATEGY_SETTINGS
from jaxnas.runtime import compiler_options
from search import STRATEGIES, Genes, Strategy
from search.limits import limited
from search.strategies.predictor import START

# Of a first population, what formulas propose where accuracy alone decides: they know
# nothing of what a family is worth.
PROPOSED = 0.5
LIVING = 100  # of `aging`, at most: Real et al. 2019, as many as they had


def build_strategy(
    name: str,
    genes: Genes,
    *,
    objectives: int,
    population: int,
    scalarize: Callable[[jax.Array], jax.Array] | None = None,
    ordered: np.ndarray | None = None,
    canonical: Callable[[jax.Array], jax.Array] | None = None,
    seeds: np.ndarray | None = None,
    stratum: int | None = None,
    proposals: np.ndarray | None = None,
    share: float | None = None,
    start: int | None = None,
    cheap: Callable[[jax.Array], jax.Array] | None = None,
    cheap_columns: tuple[int, ...] = (),
    settings: Mapping[str, float] | None = None,
) -> Strategy:
    """Gives the strategy of that name each fact that it takes.

    Args:
      name: one of `STRATEGIES`.
      genes: the space, with its limits if it has any.
      objectives: M, how many it is told.
      population: B, individuals asked at once.
      scalarize: f32[N, M] -> f32[N], a loss for strategies that work on one; they
        cannot be built without.
      ordered: bool[G], genes whose choices are in an order.
      canonical: i32[G] -> i32[G], the one genome of all that mean the same.
      seeds: i32[S, G], known good genomes.
      stratum: a gene whose choices share a first population equally.
      proposals: i32[P, G], genomes in the order of their promise, every beginning
        spread along the front that is expected.
      share: of a first population, what is proposed at most; None for the
        strategy's own.
      start: how many must be known before a model guides; None for the strategy's own.
      cheap: i32[N, G] -> f32[N, K], objectives that need no evaluation.
      cheap_columns: which of the M they are.
      settings: of the strategy itself, by name; all that are given must exist.

    Raises:
      ValueError: there is no strategy of that name, or what it was given is out of
        its range.
      TypeError: it has no such setting, or lacks a fact that it needs.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {name}")
    facts = {
        "objectives": objectives,
        "scalarize": scalarize,
        "ordered": ordered,
        "canonical": canonical,
        "seeds": seeds,
        "stratum": stratum,
        "proposals": proposals,
        "share": share,
        "start": start,
        "cheap": cheap,
        "cheap_columns": cheap_columns,
    }
    make = STRATEGIES[name]
    takes = inspect.signature(make).parameters  # not each needs every fact
    needed = {
        fact: value
        for fact, value in facts.items()
        if fact in takes and value is not None
    }
    return make(genes, population=population, **needed, **(settings or {}))


def make_strategy(
    settings: Settings,
    table: CostTable,
    scores: FitnessSettings,
    columns: Sequence[int] = range(len(OBJECTIVES)),
    /,
    **facts: Any,
) -> Strategy:
    """The strategy that the settings name, which asks what the limits allow.

    One that works on a single loss maximises fitness, which only our objectives
    make, or accuracy if that alone decides; the others minimise all objectives
    that it is told. Every family has an equal share of a first generation.

    Args:
      settings: of the run.
      table: of its space and its limits.
      scores: see `fitness`.
      columns: the objectives that it is told, by their places.
      **facts: as for `build_strategy`, in place of those of the run.
    """
    space, families = table.space, table.space.families
    stratum = space.genes.index("arch_type") if len(families) > 1 else None
    fronts = front_genomes(table)
    known = np.stack([front[0] for front in fronts])
    names = STRATEGY_SETTINGS[settings.strategy]
    exact = tuple(columns.index(at) for at in _EXACT if at in columns)
    alone = not exact

    def loss(told: jax.Array) -> jax.Array:
        return told[:, 0] if alone else -jnp.asarray(fitness(told, scores, jnp))

    own: dict[str, Any] = {
        "objectives": len(columns),
        "population": settings.population,
        "scalarize": loss,
        "ordered": space.ordered,
        "canonical": space.canonical,
        "seeds": _baselines(space),
        "stratum": stratum,
        "proposals": _in_turns(fronts),
        "cheap": None if alone else table.costs_of,
        "cheap_columns": exact,
        "share": PROPOSED if alone else None,
        "start": min(settings.population, START),
        "settings": {name: getattr(settings, name) for name in names},
    }
    if settings.strategy == "aging":  # a short search has to get past its beginning
        evaluations = settings.population * settings.generations
        living = min(LIVING, max(settings.population, evaluations // 4))
        own["settings"] |= {"population_size": living, "sample_size": -(-living // 4)}
    genes = limited(space, table.excess, known, keep=stratum)
    return build_strategy(settings.strategy, genes, **own | facts)


def compiled_strategy(
    settings: Settings,
    table: CostTable,
    scores: FitnessSettings,
    columns: Sequence[int],
) -> Strategy:
    """`make_strategy`, compiled when it is called."""
    strategy = make_strategy(settings, table, scores, columns)
    options = compiler_options(jax.default_backend(), quick=True)
    ask = jax.jit(strategy.ask, compiler_options=options)
    tell = jax.jit(strategy.tell, compiler_options=options)
    return strategy._replace(ask=ask, tell=tell)


def first_asked(
    settings: Settings,
    strategy: Strategy,
    table: CostTable,
    fields: Mapping[str, int],
) -> list[ArchitectureConfig]:
    """What the first generation of a search asks for, in its order."""
    space = table.space
    state = strategy.init(key_of(settings.seed, "init"))
    asked = strategy.ask(key_of(settings.seed, "ask", 0), state)
    genomes = np.asarray(jax.jit(jax.vmap(space.canonical))(asked))
    return [space.decode(genome, **fields) for genome in genomes]


# The objectives that the table holds.
_EXACT = (1, 2)


def _baselines(space: Space) -> np.ndarray | None:
    """i32[S, G], what comes closest to the named models; None if none does."""
    known = [
        space.nearest(config)
        for config in BASELINES.values()
        if config.arch_type in space.families
    ]
    return np.unique(known, axis=0) if known else None


def _in_turns(fronts: Sequence[np.ndarray]) -> np.ndarray:
    """i32[P, G], one of each family, then another of each."""
    rows = itertools.zip_longest(*fronts)
    return np.stack([one for row in rows for one in row if one is not None])
