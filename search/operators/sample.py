"""Drawing valid genomes: anywhere, near known good ones, in equal shares."""

import jax
import jax.numpy as jnp

from search.operators.mutate import resample
from search.types import Genes

DRAWS = 16  # tries at a valid genome; all fail with (1 - valid share) ** 16


def uniform(key: jax.Array, genes: Genes) -> jax.Array:
    """Draws a valid genome, each with the same probability.

    By rejection: the first valid of `DRAWS` genomes. If none of them is valid
    the first is repaired, so where valid genomes are rare the draw leans
    towards what `repair` returns.

    Args:
      key: PRNG key, consumed.
      genes: the space.

    Returns:
      i32[G], always valid.
    """
    cardinality = genes.cardinality
    shape = (DRAWS, *cardinality.shape)
    drawn = jax.random.randint(key, shape, 0, cardinality[None], jnp.int32)
    # argmax finds the first True, and the first of all if there is none.
    return genes.repair(drawn[jnp.argmax(jax.vmap(genes.valid)(drawn))])


def near(key: jax.Array, genes: Genes, seeds: jax.Array, rate: float) -> jax.Array:
    """Picks a seed, each as likely as another, and mutates it.

    Args:
      key: PRNG key, consumed.
      genes: the space.
      seeds: i32[S, G] within bounds, S at least 1; an invalid one is repaired.
      rate: in [0, 1], how likely each gene is redrawn.

    Returns:
      i32[G], always valid.
    """
    pick, change = jax.random.split(key)
    seed = seeds[jax.random.randint(pick, (), 0, seeds.shape[0])]
    return resample(change, seed, genes, rate)


def smart(
    key: jax.Array, genes: Genes, seeds: jax.Array, rate: float, number: int
) -> jax.Array:
    """Draws half a population anywhere and half near known good genomes.

    Args:
      key: PRNG key, consumed.
      genes: the space.
      seeds: i32[S, G], known good genomes, as in `near`.
      rate: in [0, 1], how likely each gene of a seed is redrawn.
      number: genomes to draw; of an odd number the larger half is uniform.

    Returns:
      i32[number, G], always valid, the uniform half first.
    """
    anywhere, close = jax.random.split(key)
    explored = jax.vmap(lambda key: uniform(key, genes))(
        jax.random.split(anywhere, number - number // 2)
    )
    exploited = jax.vmap(lambda key: near(key, genes, seeds, rate))(
        jax.random.split(close, number // 2)
    )
    return jnp.concatenate([explored, exploited])


def stratify(key: jax.Array, genomes: jax.Array, genes: Genes, gene: int) -> jax.Array:
    """Gives each choice of one gene an equal share of the genomes.

    Stratified sampling: a choice is never missing by chance. Which genome gets
    which choice is random; where that makes one invalid it is repaired, so the
    shares hold if `repair` leaves this gene alone, as `arch.Space` does with the
    family.

    Args:
      key: PRNG key, consumed.
      genomes: i32[B, G] within bounds.
      genes: the space.
      gene: in 0 to G-1.

    Returns:
      i32[B, G], always valid; shares differ by one at most.
    """
    shuffle, begin = jax.random.split(key)
    choices = genes.cardinality[gene]
    order = jax.random.permutation(shuffle, genomes.shape[0])
    # With fewer genomes than choices, which are left out is random too.
    choice = (order + jax.random.randint(begin, (), 0, choices)) % choices
    return jax.vmap(genes.repair)(genomes.at[:, gene].set(choice))
