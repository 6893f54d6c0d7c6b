"""How a front grew while candidates came in: its hypervolume after each."""

from collections.abc import Iterable

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
    rows = [one.objectives[: len(OBJECTIVES)] for one in scored(results)]
    if not rows:
        return np.zeros(0)
    ours = np.asarray(rows, np.float64)
    least, greatest = ours.min(axis=0), ours.max(axis=0)
    reference = greatest + _BEYOND * np.maximum(greatest - least, 1e-9)
    unit = (ours - least) / (reference - least)
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
