"""Bayesian linear regression: what is known of a function, and how well."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from search.surrogate.contrasts import Effects

# Of the values' variance, what the columns cannot tell: the likeliest is taken.
NOISES: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
ROUNDS = 2  # in which it is found out how much each gene matters
LEAST = 0.05  # of the values' deviation, how much any gene may matter
PAIRS = 0.2  # of the values' variance, all pairs together, before any is seen
TINY = 1e-12  # the surprise of values that are all the same


class Posterior(NamedTuple):
    """A normal distribution over the D weights of a regression."""

    mean: jax.Array  # f32[D]
    scale: jax.Array  # f32[D], of the prior
    factor: jax.Array  # f32[D, D], lower; the precision of weights / scale

    def deviation(self, design: jax.Array) -> jax.Array:
        """f32[N, D] -> f32[N], the standard deviation of what is predicted."""
        seen = (design * self.scale[None]).T
        apart = solve_triangular(self.factor, seen, lower=True)
        return jnp.sqrt((apart**2).sum(axis=0))

    def draw(self, key: jax.Array, number: int, spread: float = 1.0) -> jax.Array:
        """f32[number, D], weights; `spread` of the posterior's deviation around it."""
        normal = jax.random.normal(key, (len(self.mean), number))
        apart = solve_triangular(self.factor, normal, lower=True, trans=1)
        return self.mean[None] + spread * self.scale[None] * apart.T


class _Fit(NamedTuple):
    """What one noise gives."""

    evidence: jax.Array  # f32[], logarithm, but for a constant
    half: jax.Array  # f32[D], the factor times the mean of weights / scale
    factor: jax.Array  # f32[D, D]
    surprise: jax.Array  # f32[], the square of the likeliest unit


def posterior(
    design: jax.Array,
    values: jax.Array,
    used: jax.Array,
    scale: jax.Array,
    noises: tuple[float, ...] = NOISES,
) -> Posterior:
    """Ridge regression as a posterior (MacKay 1992, Bayesian interpolation).

    The noise is that of `noises` with the highest evidence, the unit of the prior
    being the likeliest for each.

    Args:
      design: f32[N, D].
      values: f32[N], of variance near 1.
      used: bool[N], at least one; False for rows to be left out.
      scale: f32[D], the prior standard deviation of each weight, but for the unit.
      noises: of the values' variance, what the columns may not tell.
    """
    seen = jnp.where(used[:, None], design * scale[None], 0.0)
    known = jnp.where(used, values, 0.0)[:, None]
    number, size = used.sum(), len(scale)
    # One product of matrices compiles in a tenth of the time of three with a vector.
    both = jnp.concatenate([seen, known], axis=1)
    products = jnp.matmul(both.T, both, precision="highest")
    gram, pull, total = products[:size, :size], products[:size, size], products[-1, -1]

    def fit(best: _Fit, noise: jax.Array) -> tuple[_Fit, None]:
        factor = jnp.linalg.cholesky(jnp.eye(size) + gram / noise)
        half = solve_triangular(factor, pull / noise, lower=True)
        # Values times the inverse of their covariance times values.
        left = jnp.maximum(total / noise - (half**2).sum(), TINY)
        volume = 2 * jnp.log(jnp.diag(factor)).sum() + number * jnp.log(noise)
        evidence = -0.5 * (number * jnp.log(left / number) + volume)
        this = _Fit(evidence, half, factor, left / number)
        better = evidence > best.evidence
        return jax.tree.map(lambda *two: jnp.where(better, *two), this, best), None

    one = jnp.float32(1)
    nothing = _Fit(-jnp.inf * one, jnp.zeros_like(scale), jnp.eye(size), one)
    found, _ = jax.lax.scan(fit, nothing, jnp.asarray(noises))
    mean = solve_triangular(found.factor, found.half, lower=True, trans=1)
    unit = jnp.sqrt(found.surprise)
    return Posterior(scale * mean, scale * unit, found.factor)


def regress(
    effects: Effects,
    genomes: jax.Array,
    values: jax.Array,
    used: jax.Array,
    noises: tuple[float, ...] = NOISES,
) -> Posterior:
    """Fits main effects and pairs, each in the measure in which its genes matter.

    How much a gene matters is estimated from main effects alone, by automatic
    relevance determination (MacKay 1994); two genes are expected to matter together
    in the measure in which each of them does (heredity, Chipman 1996).

    Args:
      effects: the columns.
      genomes: i32[N, G].
      values: f32[N].
      used: bool[N], at least one; False for rows to be left out.
      noises: see `posterior`.

    Returns:
      The weights of `effects.design`, for the values as they are.
    """
    mean = jnp.where(used, values, 0.0).sum() / used.sum()
    apart = jnp.where(used, values - mean, 0.0)
    unit = jnp.sqrt((apart**2).sum() / used.sum())
    unit = jnp.where(unit > 0, unit, 1.0)
    design = effects.design(genomes)
    alone = 1 + len(effects.gene)
    matters = relevance(effects, design[:, :alone], apart / unit, used, noises)
    together = matters[effects.pairs[0]] * matters[effects.pairs[1]]
    shares = PAIRS * together / together.sum()
    scale = jnp.concatenate([jnp.ones(1), matters, jnp.sqrt(shares)])
    both = posterior(design, apart / unit, used, scale, noises)
    weights = (unit * both.mean).at[0].add(mean)
    return Posterior(weights, unit * both.scale, both.factor)


def relevance(
    effects: Effects,
    main: jax.Array,
    values: jax.Array,
    used: jax.Array,
    noises: tuple[float, ...] = NOISES,
) -> jax.Array:
    """The prior deviation of each main column's weight, the same for one gene's.

    Args:
      effects: the columns.
      main: f32[N, 1 + E], the design without pairs.
      values: f32[N], of variance near 1.
      used: bool[N], at least one; False for rows to be left out.
      noises: see `posterior`.

    Returns:
      f32[E], at least LEAST.
    """
    genes = len(effects.table)
    columns = np.bincount(effects.gene, minlength=genes)

    def again(scale: jax.Array, _: None) -> tuple[jax.Array, None]:
        """One step of expectation maximisation: what is expected of each weight."""
        fitted = posterior(main, values, used, scale, noises)
        square = fitted.mean**2 + fitted.deviation(jnp.eye(len(scale))) ** 2
        of_gene = jax.ops.segment_sum(square[1:], effects.gene, genes)
        each = jnp.sqrt(of_gene / np.maximum(columns, 1) + LEAST**2)
        return scale.at[1:].set(each[effects.gene]), None

    return jax.lax.scan(again, jnp.ones(main.shape[1]), None, length=ROUNDS)[0][1:]
