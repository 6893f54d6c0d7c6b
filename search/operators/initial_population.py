"""The first population of a search."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from search.operators.sample import smart, stratify, uniform
from search.types import Genes


def first_population(
    genes: Genes,
    population: int,
    *,
    seeds: jax.Array | None,
    stratum: int | None,
    rate: float,
) -> Callable[[jax.Array], jax.Array]:
    """How to draw it: (key) -> i32[population, G], valid genomes.

    Args:
      genes: the space.
      population: at least 1.
      seeds: i32[S, G], known good genomes; half of the population is drawn near
        them. None to draw all of it uniformly.
      stratum: a gene whose choices share the population equally, or None.
      rate: in [0, 1], how likely each gene of a seed is redrawn.

    Raises:
      ValueError: an argument is out of its range.
    """
    if population < 1:
        raise ValueError(f"population must be at least 1, got {population}")
    length = genes.cardinality.size
    if stratum is not None and not 0 <= stratum < length:
        raise ValueError(f"stratum must be in 0 to {length - 1}, got {stratum}")
    known = None if seeds is None else _checked(seeds, genes)

    def drawn(key: jax.Array) -> jax.Array:
        if known is not None:
            return smart(key, genes, known, rate, population)
        keys = jax.random.split(key, population)
        return jax.vmap(lambda key: uniform(key, genes))(keys)

    if stratum is None:
        return drawn
    gene = stratum

    def shared(key: jax.Array) -> jax.Array:
        for_drawn, for_shares = jax.random.split(key)
        return stratify(for_shares, drawn(for_drawn), genes, gene)

    return shared


def check_rates(**rates: float) -> None:
    """Raises a ValueError that names the first one outside [0, 1]."""
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {rate}")


def _checked(seeds: jax.Array, genes: Genes) -> jax.Array:
    """seeds as i32[S, G], or a ValueError."""
    given, cardinality = np.asarray(seeds), np.asarray(genes.cardinality)
    if given.ndim != 2 or given.shape[1:] != cardinality.shape or not len(given):
        raise ValueError(
            f"seeds must have shape (S, {cardinality.size}) with S at least 1, "
            f"got {given.shape}"
        )
    if not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"seeds must be integers, got {given.dtype}")
    if ((given < 0) | (given >= cardinality)).any():
        raise ValueError(
            f"seeds must be at least 0 and below the cardinality "
            f"{cardinality.tolist()}, got {given.tolist()}"
        )
    return jnp.asarray(given, jnp.int32)
