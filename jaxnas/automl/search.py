"""The analytic search: the best shapes of a spec, and what they trade."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxnas.analytic.limits import Binding, bindings
from jaxnas.automl.conflicts import Conflict, conflict_of
from jaxnas.automl.diverse import best_rows, thinned_front
from jaxnas.automl.polish import polished
from jaxnas.automl.problem import Candidates, Problem
from search import STRATEGIES, simulate
from search.pareto.exact_front import exact_front
from search.pareto.knee import knee_point
from search.types import Strategy

_STRATEGIES = {"evolution": "genetic", "nsga2": "nsga2"}
SEARCHES = ("random", *_STRATEGIES)
SEEDED = tuple(_STRATEGIES)  # those that can start near known shapes
EXHAUSTIVE = "exhaustive"
MOST_GENOMES = 20_000_000  # that are counted one by one: some gigabytes
USUAL_GENOMES = 2_000_000  # up to which that is the default: some seconds

POPULATION = 200
POLISH_SHARE = 0.25  # of the budget, kept for the neighbours of the best


class Found(NamedTuple):
    """What a search found."""

    top: Candidates  # the best by score, best first, without near-copies
    scores: np.ndarray  # f64[K], of the top
    front: Candidates  # the exact front of all that was evaluated
    apart: Candidates  # of the front, what the figures tell apart
    knee: int  # the row of `apart` from which any gain costs much; -1 if it is empty
    every: Candidates  # all that were evaluated
    kept: Candidates  # of them, those that keep the limits
    binding: list[Binding]  # of the limits
    nearest: Candidates  # the one that breaks them least
    conflict: Conflict | None  # why nothing keeps the limits

    @property
    def evaluated(self) -> int:
        """Distinct shapes."""
        return len(self.every.genomes)

    @property
    def feasible(self) -> int:
        """Shapes that keep the limits."""
        return len(self.kept.genomes)


def usual_strategy(total: int) -> str:
    """The best strategy for that many shapes: counting them, while that is quick."""
    return EXHAUSTIVE if total <= USUAL_GENOMES else "nsga2"


def search_shapes(
    problem: Problem,
    strategy: str,
    budget: int,
    top: int,
    key: jax.Array,
    seeds: np.ndarray | None = None,
    *,
    similar: bool = False,
) -> Found:
    """Searches the shapes of a spec; or counts them all.

    Args:
      problem: see `Problem`.
      strategy: in SEARCHES, or EXHAUSTIVE, which has no budget.
      budget: shapes evaluated, at most.
      top: how many of the best to return.
      key: PRNG key, consumed.
      seeds: i32[S, G], known good genomes.
      similar: near-copies of the best are returned too.
    """
    if strategy == EXHAUSTIVE:
        return _found(problem, problem.everything(), top, similar)
    if strategy == "random":
        genomes = problem.shapes.sample(_generator(key), budget)
        return _found(problem, problem.candidates(genomes), top, similar)
    genomes = asked(problem, strategy, budget - int(POLISH_SHARE * budget), key, seeds)
    candidates = problem.candidates(np.unique(genomes, axis=0))
    if left := budget - len(candidates.genomes):
        candidates = polished(problem, candidates, left)
    return _found(problem, candidates, top, similar)


def _generator(key: jax.Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def asked(
    problem: Problem,
    strategy: str,
    budget: int,
    key: jax.Array,
    seeds: np.ndarray | None,
) -> np.ndarray:
    """i32[N, G], what a strategy asks for; the whole search is one compiled loop."""
    population = min(POPULATION, math.isqrt(budget))  # as many generations at least
    made = _strategy(problem, strategy, population, seeds)
    run = jax.jit(simulate, static_argnums=(0, 2, 3))
    _, history = run(made, key, problem.losses, budget // population)
    return np.asarray(history.genomes).reshape(-1, len(problem.shapes.names))


def _strategy(
    problem: Problem, name: str, population: int, seeds: np.ndarray | None
) -> Strategy:
    make: Callable[..., Strategy] = STRATEGIES[_STRATEGIES[name]]
    genes = problem.shapes
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


def _found(problem: Problem, candidates: Candidates, top: int, similar: bool) -> Found:
    rows = np.flatnonzero(candidates.violation <= 0)
    feasible = candidates.take(rows)
    scores = problem.scores(feasible)
    best = best_rows(problem, feasible, scores, top, similar)
    on_front = exact_front(problem.table(feasible))
    front = feasible.take(on_front)
    apart = front.take(thinned_front(problem, front, scores[on_front]))
    limits = problem.spec.limits
    nothing = limits and not len(rows)
    return Found(
        top=feasible.take(best),
        scores=scores[best],
        front=front,
        apart=apart,
        knee=_knee(problem, apart),
        every=candidates,
        kept=feasible,
        binding=bindings(limits, candidates.values),
        nearest=candidates.take(np.asarray([np.argmin(candidates.violation)])),
        conflict=conflict_of(limits, candidates.values) if nothing else None,
    )


def _knee(problem: Problem, front: Candidates) -> int:
    """Of predicted loss against all that is paid for it, on logarithmic scales."""
    if not len(front.genomes):
        return -1
    logs = np.log(problem.table(front))
    logs = (logs - logs.min(axis=0)) / np.maximum(np.ptp(logs, axis=0), 1e-9)
    paid = np.asarray([name != "loss" for name in problem.aims])
    if paid.any() and not paid.all():
        logs = np.stack([logs[:, paid].mean(axis=1), logs[:, ~paid][:, 0]], axis=1)
    return int(knee_point(jax.numpy.asarray(logs, "float32")))
