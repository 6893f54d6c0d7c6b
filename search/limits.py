"""Hard limits on a space: only what is allowed is ever asked."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from search.types import Genes

STEPS = 8  # genes that a repair changes at most, before it takes a known genome


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limited:
    """A space of which only a part is allowed; made by `limited`.

    Attributes:
      genes: the space without limits.
      excess: i32[G] -> f32[], 0 or less for what is allowed.
      known: i32[K, G], allowed genomes.
      keep: the gene that `repair` leaves alone if it can, or None.
    """

    genes: Genes
    excess: Callable[[jax.Array], jax.Array]
    known: np.ndarray
    keep: int | None

    @property
    def cardinality(self) -> jax.Array:
        """i32[G], choices per gene."""
        return self.genes.cardinality

    def valid(self, genome: jax.Array) -> jax.Array:
        """i32[G] -> bool[], True for what exists and is allowed."""
        return self.genes.valid(genome) & (self.excess(genome) <= 0)

    def repair(self, genome: jax.Array) -> jax.Array:
        """i32[G] -> i32[G], the genome itself if allowed, else one near it that is.

        Repaired as the space does, it goes from neighbour to neighbour, one gene
        changed at each step: to that just within the limits if there is one, else
        to that which exceeds them least. Where this ends outside, the nearest of
        the known genomes stands in.
        """
        start = self.genes.repair(genome)
        neighbours = self._neighbours()

        def outside(walk: _Walk) -> jax.Array:
            return (walk.excess > 0) & (walk.steps < STEPS)

        def step(walk: _Walk) -> _Walk:
            near = neighbours(walk.genome)
            over = jax.vmap(self._excess)(near)
            if self.keep is not None:
                other = near[:, self.keep] != walk.genome[self.keep]
                over = jnp.where(other, jnp.inf, over)
            within = over <= 0
            rank = jnp.where(within.any(), jnp.where(within, -over, jnp.inf), over)
            best = rank.argmin()
            better = over[best] < walk.excess
            # Where no neighbour is better there is nowhere to go.
            steps = jnp.where(better, walk.steps + 1, STEPS)
            genome = jnp.where(better, near[best], walk.genome)
            return _Walk(genome, jnp.minimum(over[best], walk.excess), steps)

        end = jax.lax.while_loop(
            outside, step, _Walk(start, self._excess(start), jnp.int32(0))
        )
        return jnp.where(end.excess <= 0, end.genome, self._nearest(start))

    def _excess(self, genome: jax.Array) -> jax.Array:
        """f32[], inf where it is not a number."""
        over = jnp.asarray(self.excess(genome), jnp.float32)
        return jnp.where(jnp.isnan(over), jnp.inf, over)

    def _neighbours(self) -> Callable[[jax.Array], jax.Array]:
        """i32[G] -> i32[N, G], one for each choice of each gene, repaired."""
        with jax.ensure_compile_time_eval():
            cardinality = np.asarray(self.cardinality)
        gene = np.repeat(np.arange(len(cardinality)), cardinality)
        choice = np.concatenate([np.arange(choices) for choices in cardinality])
        changed = lambda genome, gene, choice: self.genes.repair(
            genome.at[gene].set(choice)
        )
        return lambda genome: jax.vmap(changed, (None, 0, 0))(
            genome, gene, choice.astype(np.int32)
        )

    def _nearest(self, genome: jax.Array) -> jax.Array:
        """The known genome with the most genes alike, `keep` before all."""
        alike = self.known == genome[None]
        count = alike.sum(axis=1)
        if self.keep is not None:
            count += alike[:, self.keep] * alike.shape[1]
        return jnp.asarray(self.known)[count.argmax()]


class _Walk(NamedTuple):
    """Where a repair has come to."""

    genome: jax.Array  # i32[G]
    excess: jax.Array  # f32[]
    steps: jax.Array  # i32[]


def limited(
    genes: Genes,
    excess: Callable[[jax.Array], jax.Array],
    known: np.ndarray,
    *,
    keep: int | None = None,
) -> Limited:
    """The space with hard limits: what is not allowed counts as not valid.

    Strategies ask valid genomes only, so none asks what is not allowed.

    Args:
      genes: the space.
      excess: i32[G] -> f32[], by how much a valid genome exceeds the limits, 0 or
        less if it is allowed; of several limits the worst. Pure, cheap and
        jit-able, and the same for genomes that mean the same.
      known: i32[K, G], valid and allowed genomes, K at least 1.
      keep: a gene that `repair` leaves as it is wherever that is possible: shares
        by `stratify` hold if `known` has a genome for each of its choices that has
        an allowed genome. None if no gene is special.

    Raises:
      ValueError: `keep` is no gene, or a genome of `known` is not allowed.
    """
    length = genes.cardinality.size
    if keep is not None and not 0 <= keep < length:
        raise ValueError(f"keep must be in 0 to {length - 1}, got {keep}")
    rows = np.asarray(known)
    if rows.ndim != 2 or rows.shape[1] != length or not len(rows):
        raise ValueError(
            f"known must have shape (K, {length}) with K at least 1, got {rows.shape}"
        )
    if rows.dtype.kind not in "iu":
        raise ValueError(f"known must hold integers, got {rows.dtype}")
    rows = rows.astype(np.int32)
    limits = Limited(genes=genes, excess=excess, known=rows, keep=keep)
    allowed = np.asarray(jax.jit(jax.vmap(limits.valid))(rows))
    if not allowed.all():
        raise ValueError(f"known must be allowed, {rows[~allowed].tolist()} are not")
    return limits


def unlimited(genes: Genes) -> Genes:
    """The space without its limits, if it has any."""
    while isinstance(genes, Limited):
        genes = genes.genes
    return genes
