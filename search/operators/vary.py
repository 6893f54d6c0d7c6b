"""A child of two parents, of integer genes with and without an order."""

import jax
import jax.numpy as jnp
import numpy as np

from search.operators.crossover import uniform_crossover
from search.operators.mutate import resample
from search.operators.sbx import vary_real
from search.types import Genes

# With few choices a step has to be long to be one at all.
ORDERED_MUTATION_ETA = 3.0


def vary_integers(
    key: jax.Array,
    first: jax.Array,
    second: jax.Array,
    genes: Genes,
    ordered: np.ndarray,
    *,
    crossover_rate: float,
    mutation_rate: float,
) -> jax.Array:
    """Varies ordered genes as reals, and the others gene by gene.

    Choice n of an ordered gene is all of [n - 1/2, n + 1/2), so each is as wide
    as the next; the child of `vary_real` is rounded. The other genes come of
    uniform crossover and are redrawn.

    Args:
      key: PRNG key, consumed.
      first, second: i32[G], the parents, within bounds.
      genes: the space.
      ordered: bool[G], genes whose choices are in an order that means something.
      crossover_rate: in [0, 1], how likely the child mixes its parents.
      mutation_rate: in [0, 1], how likely each gene changes.

    Returns:
      i32[G], always valid.
    """
    for_ordered, cross, change = jax.random.split(key, 3)
    high = jnp.asarray(genes.cardinality) - 0.5
    child = vary_real(
        for_ordered,
        first.astype(jnp.float32),
        second.astype(jnp.float32),
        jnp.full_like(high, -0.5),
        high,
        crossover_rate=crossover_rate,
        mutation_rate=mutation_rate,
        mutation_eta=ORDERED_MUTATION_ETA,
    )
    whole = jnp.floor(child + 0.5).astype(jnp.int32)
    whole = jnp.clip(whole, 0, genes.cardinality - 1)
    if np.all(ordered):
        return genes.repair(whole)
    other = uniform_crossover(cross, first, second, genes, crossover_rate)
    other = resample(change, other, genes, mutation_rate)
    return genes.repair(jnp.where(ordered, whole, other))


def check_ordered(ordered: np.ndarray | None, genes: Genes) -> np.ndarray:
    """`ordered` as bool[G], none if None; or a ValueError."""
    length = genes.cardinality.size
    in_order = np.zeros(length, bool) if ordered is None else np.asarray(ordered)
    if in_order.shape != (length,) or in_order.dtype != bool:
        raise ValueError(f"ordered must be bool[{length}], got {ordered}")
    return in_order
