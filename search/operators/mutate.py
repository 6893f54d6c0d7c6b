"""Mutation: small random changes to one genome."""

import jax
import jax.numpy as jnp

from search.types import Genes


def resample(
    key: jax.Array, genome: jax.Array, genes: Genes, rate: float = 0.3
) -> jax.Array:
    """Redraws each gene with probability `rate`, never to its old value.

    What comes out is then repaired, which may change further genes or take a
    change back.

    Args:
      key: PRNG key, consumed.
      genome: i32[G], 0 <= genome[g] < cardinality[g].
      genes: the space.
      rate: in [0, 1].

    Returns:
      i32[G], always valid; before the repair, a gene with one choice is as it was.
    """
    which, how_far = jax.random.split(key)
    cardinality, shape = genes.cardinality, genome.shape
    redraw = jax.random.bernoulli(which, rate, shape)
    # 1 to n-1 places around a ring of n choices never ends at the start.
    end = jnp.maximum(cardinality, 2)
    offset = jax.random.randint(how_far, shape, 1, end, jnp.int32)
    return genes.repair(jnp.where(redraw, (genome + offset) % cardinality, genome))


def change_one(key: jax.Array, genome: jax.Array, genes: Genes) -> jax.Array:
    """Changes one gene, each that has a choice as likely as another, then repairs.

    Args:
      key: PRNG key, consumed.
      genome: i32[G], 0 <= genome[g] < cardinality[g].
      genes: the space.

    Returns:
      i32[G], always valid; the genome itself if no gene has a choice.
    """
    which, how_far = jax.random.split(key)
    cardinality = jnp.asarray(genes.cardinality)
    order = jax.random.uniform(which, genome.shape)
    gene = jnp.argmax(jnp.where(cardinality > 1, order, -1.0))
    end = jnp.maximum(cardinality[gene], 2)
    offset = jax.random.randint(how_far, (), 1, end, jnp.int32)
    changed = (genome[gene] + offset) % cardinality[gene]
    return genes.repair(genome.at[gene].set(changed))
