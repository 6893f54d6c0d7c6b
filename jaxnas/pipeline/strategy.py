"""A strategy by its name, of whatever is known of the space and the objectives."""

import inspect
from collections.abc import Callable, Mapping

import jax
import numpy as np

from search import STRATEGIES, Genes, Strategy


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
