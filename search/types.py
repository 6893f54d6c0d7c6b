"""The vocabulary of the search: what every operator and strategy speaks.

G genes, B individuals asked at once, N told at once, M objectives (minimised,
NaN if failed).
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

import jax

State = TypeVar("State")


class Genes(Protocol):
    """What a search needs to know of a space; `arch.Space` is one."""

    @property
    def cardinality(self) -> jax.Array:
        """i32[G], choices per gene, at least 1."""

    def valid(self, genome: jax.Array) -> jax.Array:
        """i32[G] -> bool[], True if the genome names something that exists."""

    def repair(self, genome: jax.Array) -> jax.Array:
        """i32[G] -> i32[G], the genome itself if valid, else a valid one near it."""


class Strategy(NamedTuple, Generic[State]):
    """A search algorithm as three pure functions; all of them jit and vmap.

    init: (key) -> state.
    ask: (key, state) -> i32[B, G], valid genomes to evaluate. B is fixed.
    tell: (state, ids, genomes, objectives, mask) -> state. ids i32[N] name the
      individuals in the order they were asked and break ties, so the state
      does not depend on the order of the rows; genomes i32[N, G];
      objectives f32[N, M]; mask bool[N], False for rows to be ignored.
    """

    init: Callable[[jax.Array], State]
    ask: Callable[[jax.Array, State], jax.Array]
    tell: Callable[[State, jax.Array, jax.Array, jax.Array, jax.Array], State]
