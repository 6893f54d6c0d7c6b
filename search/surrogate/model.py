"""Objectives of genomes that were not evaluated: guessed, or known exactly."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from search.individuals import Individuals
from search.operators.vary import check_ordered
from search.surrogate.contrasts import Effects, effects
from search.surrogate.regression import regress
from search.types import Genes


class Surrogate(NamedTuple):
    """Guesses the objectives in `guessed` by regression, takes others from `cheap`."""

    columns: Effects
    guessed: tuple[int, ...]
    known: tuple[int, ...]
    cheap: Callable[[jax.Array], jax.Array] | None
    noises: tuple[float, ...]

    def fit(self, rows: Individuals) -> jax.Array:
        """f32[K, D], the weights that the rows make likely; at least one is used."""
        fitted = lambda values: (
            regress(self.columns, rows.genomes, values, rows.used, self.noises).mean
        )
        # One after the other: compiled once.
        return jax.lax.map(fitted, rows.objectives.T[np.asarray(self.guessed)])

    def draw(
        self, key: jax.Array, rows: Individuals, number: int, spread: float
    ) -> jax.Array:
        """f32[number, D], weights of the only guessed objective, from what is likely.

        Args:
          key: PRNG key, consumed.
          rows: as for `fit`.
          number: of draws.
          spread: of them, 1 for the posterior's own.
        """
        [guessed] = self.guessed
        values = rows.objectives[:, guessed]
        fitted = regress(self.columns, rows.genomes, values, rows.used, self.noises)
        return fitted.draw(key, number, spread)

    def predict(self, weights: jax.Array, genomes: jax.Array) -> jax.Array:
        """Weights f32[K, D], i32[N, G] -> f32[N, M]."""
        main = self.columns.main(genomes)
        guesses = jax.vmap(self.columns.apply, (0, None))(weights, main).T
        if self.cheap is None:
            return guesses
        both = jnp.concatenate([guesses, self.cheap(genomes)], axis=1)
        return both[:, np.argsort([*self.guessed, *self.known])]


def surrogate(
    genes: Genes,
    *,
    objectives: int,
    ordered: np.ndarray | None,
    cheap: Callable[[jax.Array], jax.Array] | None,
    cheap_columns: tuple[int, ...],
    noises: tuple[float, ...],
) -> Surrogate:
    """The arguments are those of `predictor`.

    Raises:
      ValueError: an argument is out of its range.
    """
    if not noises or not all(0 < noise < 1 for noise in noises):
        raise ValueError(f"noises must be one or more in (0, 1), got {noises}")
    in_order = check_ordered(ordered, genes)
    guessed = tuple(m for m in range(objectives) if m not in cheap_columns)
    if len(guessed) + len(cheap_columns) != objectives or not guessed:
        raise ValueError(
            f"cheap_columns must be distinct, some of 0 to {objectives - 1} and not "
            f"all, got {cheap_columns}"
        )
    if (cheap is None) != (not cheap_columns):
        raise ValueError(f"cheap and cheap_columns go together, got {cheap_columns}")
    columns = effects(np.asarray(genes.cardinality), in_order)
    return Surrogate(columns, guessed, cheap_columns, cheap, noises)
