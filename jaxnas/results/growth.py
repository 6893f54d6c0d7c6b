"""How a front grew while candidates came in: its hypervolume after each."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.evaluation.fitness import OBJECTIVES
from jaxnas.results.result import Result, scored
from search.pareto.hypervolume import hypervolume

_BEYOND = 0.01  # of an objective's range, how far the reference lies behind the worst


def growth(results: Iterable[Result]) -> np.ndarray:
    """The hypervolume after each candidate that succeeded, in their order.

    Over accuracy, size and latency, each measured from just beyond the worst that
    any candidate has (0) to the best (1). A candidate that had the best of all three
    would make it 1.

    Returns:
      f64[N] in [0, 1], never falling.
    """
    return growths([results])[0]


def growths(runs: Sequence[Iterable[Result]]) -> list[np.ndarray]:
    """The `growth` of several runs, from the worst to the best candidate of any."""
    rows = [
        np.asarray([one.objectives[: len(OBJECTIVES)] for one in scored(results)])
        for results in runs
    ]
    every = np.concatenate([own.reshape(-1, len(OBJECTIVES)) for own in rows])
    if not len(every):
        return [np.zeros(0) for _ in rows]
    least, greatest = every.min(axis=0), every.max(axis=0)
    reference = greatest + _BEYOND * np.maximum(greatest - least, 1e-9)
    scale = lambda own: (own - least) / (reference - least)
    return [_volumes(scale(own)) if len(own) else np.zeros(0) for own in rows]


def _volumes(unit: np.ndarray) -> np.ndarray:
    """f64[N, M] in units of the whole range -> f64[N], after each."""
    adds = _not_beaten_yet(unit)
    volumes = _after_each(jnp.asarray(unit[adds], jnp.float32))
    return np.asarray(volumes, np.float64)[np.cumsum(adds) - 1]


def _not_beaten_yet(rows: np.ndarray) -> np.ndarray:
    """f[N, M] -> bool[N]: no earlier row is as good everywhere."""
    front = rows[:0]
    adds = np.zeros(len(rows), bool)
    for place, row in enumerate(rows):
        if (front <= row).all(axis=1).any():
            continue
        adds[place] = True
        kept = front[~(row <= front).all(axis=1)]
        front = np.concatenate([kept, row[None]])
    return adds


@jax.jit
def _after_each(rows: jax.Array) -> jax.Array:
    """f32[N, M] -> f32[N]: the hypervolume of the rows up to each, from 1."""
    reference = jnp.ones(rows.shape[1])
    places = jnp.arange(rows.shape[0])

    def after(place: jax.Array) -> jax.Array:
        seen = (places <= place)[:, None]
        return hypervolume(jnp.where(seen, rows, reference[None]), reference)

    return jax.lax.map(after, places)
