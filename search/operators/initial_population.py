"""The first population of a search."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from search.operators.sample import smart, stratify
from search.operators.vary import check_ordered
from search.types import Genes

SHARE = 0.75  # of a first population, what is proposed; the rest explores


class Proposals(NamedTuple):
    """Genomes in the order of their promise."""

    genomes: jax.Array  # i32[P, G], valid; P may be 0
    number: int  # how many a population holds at most
    stratum: int | None  # a gene of whose choices none may have more than its share
    quota: int  # that share

    def next(self, told: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The next i32[number, G], and bool[number], which of them there are.

        Args:
          told: bool[P], those to be left out; None for none.
        """
        held = len(self.genomes)
        open_ = jnp.ones(held, bool) if told is None else ~told
        if self.stratum is not None:
            choice = self.genomes[:, self.stratum]
            alike = choice[:, None] == choice[None]
            earlier = jnp.tril(alike & open_[None], -1).sum(axis=1)
            open_ &= earlier < self.quota
        order = jnp.argsort(~open_)[: self.number]  # stable
        return self.genomes[order], open_[order]


class First(Protocol):
    """How to draw a first population."""

    def __call__(self, key: jax.Array, told: jax.Array | None = None) -> jax.Array:
        """Key -> i32[B, G], valid; bool[P] `told` marks proposals to leave out."""


def first_population(
    genes: Genes,
    population: int,
    *,
    seeds: jax.Array | None,
    stratum: int | None,
    rate: float,
    ordered: np.ndarray | None = None,
    proposals: jax.Array | None = None,
    share: float = SHARE,
) -> First:
    """What is proposed, then genomes from anywhere and near the seeds in turns.

    Args:
      genes: the space.
      population: B, at least 1.
      seeds: i32[S, G], known good genomes; half of what is drawn is near them.
        None to draw all of it anywhere.
      stratum: a gene whose choices share the population equally, or None.
      rate: in [0, 1], how likely each gene of a seed is redrawn.
      ordered: bool[G], genes whose choices are in an order: small and large genomes
        come up as often as others (`spread`). None to draw `uniform`.
      proposals: i32[P, G], in the order of their promise; those not valid are left
        out. None for none.
      share: in [0, 1], of the population, how much is proposed at most.

    Raises:
      ValueError: an argument is out of its range.
    """
    if population < 1:
        raise ValueError(f"population must be at least 1, got {population}")
    length = genes.cardinality.size
    if stratum is not None and not 0 <= stratum < length:
        raise ValueError(f"stratum must be in 0 to {length - 1}, got {stratum}")
    check_rates(share=share)
    if ordered is not None:
        ordered = check_ordered(ordered, genes)
    known = None if seeds is None else _checked("seeds", seeds, genes)
    listed = proposed(genes, proposals)
    choices = 1 if stratum is None else int(np.asarray(genes.cardinality)[stratum])
    number = min(len(listed), round(share * population))
    promising = Proposals(listed, number, stratum, max(1, population // choices))

    def drawn(key: jax.Array, others: jax.Array) -> jax.Array:
        """i32[B, G], of which any first ones do; `others` are asked beside them."""
        if stratum is None:
            return smart(key, genes, known, rate, population, ordered)
        for_drawn, for_shares = jax.random.split(key)
        anything = smart(for_drawn, genes, known, rate, population, ordered)
        return stratify(for_shares, anything, genes, stratum, others)

    def first(key: jax.Array, told: jax.Array | None = None) -> jax.Array:
        best, new = promising.next(told)
        column = best[:, 0 if stratum is None else stratum]
        others = jnp.zeros(choices, jnp.int32).at[column].add(new, mode="drop")
        both = jnp.concatenate([best, drawn(key, others)])
        wanted = jnp.concatenate([new, jnp.ones(population, bool)])
        return both[jnp.argsort(~wanted)[:population]]

    return first


def proposed(genes: Genes, proposals: jax.Array | None) -> jax.Array:
    """The proposals that are valid, i32[P, G]; none if None.

    Raises:
      ValueError: they are no genomes of the space.
    """
    if proposals is None or not len(proposals):
        return jnp.zeros((0, genes.cardinality.size), jnp.int32)
    listed = _checked("proposals", proposals, genes)
    return listed[np.asarray(jax.jit(jax.vmap(genes.valid))(listed))]


def check_rates(**rates: float) -> None:
    """Raises a ValueError that names the first one outside [0, 1]."""
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {rate}")


def _checked(name: str, genomes: jax.Array, genes: Genes) -> jax.Array:
    """genomes as i32[S, G], or a ValueError that names them."""
    given, cardinality = np.asarray(genomes), np.asarray(genes.cardinality)
    if given.ndim != 2 or given.shape[1:] != cardinality.shape or not len(given):
        raise ValueError(
            f"{name} must have shape (S, {cardinality.size}) with S at least 1, "
            f"got {given.shape}"
        )
    if not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got {given.dtype}")
    if ((given < 0) | (given >= cardinality)).any():
        raise ValueError(
            f"{name} must be at least 0 and below the cardinality "
            f"{cardinality.tolist()}, got {given.tolist()}"
        )
    return jnp.asarray(given, jnp.int32)
