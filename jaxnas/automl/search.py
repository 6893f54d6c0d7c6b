"""The analytic search: the best shapes of a spec, and what they trade."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxnas.analytic.limits import Binding, bindings
from jaxnas.automl.polish import polished
from jaxnas.automl.problem import Candidates, Problem
from search import STRATEGIES, simulate
from search.pareto.exact_front import exact_front
from search.types import Strategy

SEARCHES = {"random": "random", "evolution": "genetic", "nsga2": "nsga2"}
EXHAUSTIVE = "exhaustive"
MOST_GENOMES = 50_000_000  # that are counted one by one

POPULATION = 200
POLISH_SHARE = 0.25  # of the budget, kept for the neighbours of the best


class Found(NamedTuple):
    """What a search found."""

    top: Candidates  # the best by score, best first
    scores: np.ndarray  # f64[K], of the top
    front: Candidates  # the exact front of all that was evaluated
    kept: Candidates  # all that keep the limits
    evaluated: int  # distinct shapes
    binding: list[Binding]  # of the limits
    nearest: Candidates  # the one that breaks them least

    @property
    def feasible(self) -> int:
        """Shapes that keep the limits."""
        return len(self.kept.genomes)


def search_shapes(
    problem: Problem,
    strategy: str,
    budget: int,
    top: int,
    key: jax.Array,
    seeds: np.ndarray | None = None,
) -> Found:
    """Searches the shapes of a spec; or counts them all.

    Args:
      problem: see `Problem`.
      strategy: in SEARCHES, or EXHAUSTIVE, which has no budget.
      budget: shapes evaluated, at most.
      top: how many of the best to return.
      key: PRNG key, consumed.
      seeds: i32[S, G], known good genomes.
    """
    if strategy == EXHAUSTIVE:
        return _found(problem, problem.everything(), top)
    polish = 0 if strategy == "random" else int(POLISH_SHARE * budget)
    genomes = asked(problem, strategy, budget - polish, key, seeds)
    candidates = problem.candidates(np.unique(genomes, axis=0))
    if polish:
        candidates = polished(problem, candidates, polish)
    return _found(problem, candidates, top)


def asked(
    problem: Problem,
    strategy: str,
    budget: int,
    key: jax.Array,
    seeds: np.ndarray | None,
) -> np.ndarray:
    """i32[N, G], what a strategy asks for; the whole search is one compiled loop."""
    population = min(POPULATION, budget)
    made = _strategy(problem, strategy, population, seeds)
    run = jax.jit(simulate, static_argnums=(0, 2, 3))
    _, history = run(made, key, problem.losses, budget // population)
    return np.asarray(history.genomes).reshape(-1, len(problem.shapes.names))


def _strategy(
    problem: Problem, name: str, population: int, seeds: np.ndarray | None
) -> Strategy:
    make: Callable[..., Strategy] = STRATEGIES[SEARCHES[name]]
    genes = problem.shapes
    if name == "random":
        return make(genes, population=population)
    if name == "evolution":
        return make(
            genes, population=population, scalarize=problem.scalarize, seeds=seeds
        )
    return make(
        genes,
        population=population,
        objectives=len(problem.aims),
        ordered=np.ones(len(genes.names), bool),
        seeds=seeds,
    )


def _found(problem: Problem, candidates: Candidates, top: int) -> Found:
    rows = np.flatnonzero(candidates.violation <= 0)
    feasible = candidates.take(rows)
    scores = problem.scores(feasible)
    best = np.lexsort((*feasible.genomes.T[::-1], -scores))[:top]
    nearest = np.asarray([np.argmin(candidates.violation)])
    return Found(
        top=feasible.take(best),
        scores=scores[best],
        front=feasible.take(exact_front(problem.table(feasible))),
        kept=feasible,
        evaluated=len(candidates.genomes),
        binding=bindings(problem.spec.limits, candidates.values),
        nearest=candidates.take(nearest),
    )
