"""Drawing valid genomes: anywhere, of any size, near good ones, in equal shares."""

import jax
import jax.numpy as jnp
import numpy as np

from search.draws import uniforms
from search.operators.mutate import resample
from search.types import Genes

DRAWS = 16  # tries at a valid genome; all fail with (1 - valid share) ** 16
AROUND = 1.0  # of all choices, how far those of one genome spread around its scale


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
    drawn = uniforms(key, (DRAWS, genes.cardinality.size))
    return _first_valid(drawn, genes)


def spread(key: jax.Array, genes: Genes, ordered: np.ndarray) -> jax.Array:
    """Draws a valid genome of any size, small and large ones as likely as others.

    What a genome costs is nearly a sum over its genes: if these are drawn each by
    itself, that of many is always near the middle. So a scale is drawn first,
    uniform, and each ordered gene around it; the others are drawn as in `uniform`,
    and so is the first valid of `DRAWS` genomes, each of a scale of its own.

    Args:
      key: PRNG key, consumed.
      genes: the space.
      ordered: bool[G], genes whose choices are in an order that means something.

    Returns:
      i32[G], always valid.
    """
    length = genes.cardinality.size
    drawn = uniforms(key, (DRAWS, 1 + length))
    scale, each = drawn[:, :1], drawn[:, 1:]
    around = jnp.clip(scale + AROUND * (each - 0.5), 0.0, 1.0)
    return _first_valid(jnp.where(ordered[None], around, each), genes)


def _first_valid(places: jax.Array, genes: Genes) -> jax.Array:
    """f32[N, G] in [0, 1], shares of the way through the choices -> i32[G]."""
    cardinality = jnp.asarray(genes.cardinality)[None]
    drawn = jnp.floor(places * cardinality).astype(jnp.int32)
    drawn = jnp.minimum(drawn, cardinality - 1)
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
    key: jax.Array,
    genes: Genes,
    seeds: jax.Array | None,
    rate: float,
    number: int,
    ordered: np.ndarray | None = None,
) -> jax.Array:
    """Draws half a population anywhere and half near known good genomes.

    Args:
      key: PRNG key, consumed.
      genes: the space.
      seeds: i32[S, G], known good genomes, as in `near`; None to draw all anywhere.
      rate: in [0, 1], how likely each gene of a seed is redrawn.
      number: genomes to draw; of an odd number the larger half is anywhere.
      ordered: bool[G], as in `spread`; None to draw as `uniform` does.

    Returns:
      i32[number, G], always valid, in turns, one from anywhere first.
    """
    anywhere, close = jax.random.split(key)
    half = 0 if seeds is None else number // 2
    draw = lambda key: (
        uniform(key, genes) if ordered is None else spread(key, genes, ordered)
    )
    explored = jax.vmap(draw)(jax.random.split(anywhere, number - half))
    if seeds is None:
        return explored
    exploited = jax.vmap(lambda key: near(key, genes, seeds, rate))(
        jax.random.split(close, half)
    )
    turns = np.concatenate([2 * np.arange(number - half), 2 * np.arange(half) + 1])
    return jnp.concatenate([explored, exploited])[np.argsort(turns)]


def stratify(
    key: jax.Array,
    genomes: jax.Array,
    genes: Genes,
    gene: int,
    others: jax.Array | None = None,
) -> jax.Array:
    """Gives each choice of one gene an equal share of the genomes.

    Stratified sampling: a choice is never missing by chance. Which genome gets
    which choice is random, and the first genomes alone have equal shares too. Where
    a choice makes one invalid it is repaired, so the shares hold if `repair` leaves
    this gene alone, as `arch.Space` does with the family.

    Args:
      key: PRNG key, consumed.
      genomes: i32[B, G] within bounds.
      genes: the space.
      gene: in 0 to G-1.
      others: i32[C], for each of the gene's C choices how many others have it, B at
        most; they count towards its share. None for none.

    Returns:
      i32[B, G], always valid; shares differ by one at most, but for a choice of
      which there were more already.
    """
    number = genomes.shape[0]
    with jax.ensure_compile_time_eval():
        choices = int(genes.cardinality[gene])
    # Level by level; in which order each is filled is random, so that with fewer
    # genomes than choices, which are left out is random too.
    level = jnp.arange(2 * number)[:, None]
    turns = level + uniforms(key, (2 * number, choices))
    if others is not None:
        turns = jnp.where(level < others[None], jnp.inf, turns)
    choice = jnp.argsort(turns.ravel())[:number] % choices
    shared = genomes.at[:, gene].set(choice.astype(jnp.int32))
    return jax.vmap(genes.repair)(shared)
