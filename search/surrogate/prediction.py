"""What the regression expects of genomes, and how sure it is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from search.operators.vary import check_ordered
from search.surrogate.contrasts import effects
from search.surrogate.regression import regress
from search.types import Genes


class Prediction(NamedTuple):
    """One objective of N genomes, as far as it is known."""

    mean: jax.Array  # f32[N]
    deviation: jax.Array  # f32[N], standard, of the mean: without a reading's noise


def posterior_mean(
    genes: Genes,
    genomes: jax.Array,
    values: jax.Array,
    used: jax.Array | None = None,
    ordered: np.ndarray | None = None,
    *,
    at: jax.Array | None = None,
) -> Prediction:
    """Smooths one objective over genes and pairs of genes (see `regress`).

    At the genomes that were measured the mean is a better guess of the objective
    than one noisy value is: it chooses among near-equals. Jits over the arrays.

    Args:
      genes: the space.
      genomes: i32[N, G], measured.
      values: f32[N], what was measured; a value that is not finite has failed.
      used: bool[N], False for rows to be left out; None for none.
      ordered: bool[G], genes whose choices are in an order; None for none.
      at: i32[K, G], where to predict; None for the measured genomes.

    Returns:
      Of K rows, those of `at`. The mean is NaN if nothing was measured.

    Raises:
      ValueError: `ordered` is not bool[G].
    """
    in_order = check_ordered(ordered, genes)
    with jax.ensure_compile_time_eval():
        cardinality = np.asarray(genes.cardinality)
    columns = effects(cardinality, in_order)
    there = jnp.isfinite(values)
    there &= True if used is None else used
    fitted = regress(columns, genomes, values, there)
    where = genomes if at is None else at
    mean = columns.apply(fitted.mean, columns.main(where))
    return Prediction(mean, fitted.deviation(columns.design(where)))
