"""Bayesian linear regression: what is known of a function, and how well."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from search.surrogate.contrasts import Effects

NOISE = 1e-3  # of the values' variance, what the columns cannot tell
PAIRS = 0.4  # of the values' variance, all pairs together, before any is seen


class Posterior(NamedTuple):
    """A normal distribution over the D weights of a regression."""

    mean: jax.Array  # f32[D]
    scale: jax.Array  # f32[D], of the prior
    factor: jax.Array  # f32[D, D], lower; the precision of weights / scale

    def draw(self, key: jax.Array) -> jax.Array:
        """f32[D], one function that the values allow."""
        normal = jax.random.normal(key, self.mean.shape)
        away = solve_triangular(self.factor, normal, lower=True, trans=1)
        return self.mean + self.scale * away

    def deviation(self, design: jax.Array) -> jax.Array:
        """f32[N, D] -> f32[N], the standard deviation of what is predicted."""
        seen = (design * self.scale[None]).T
        apart = solve_triangular(self.factor, seen, lower=True)
        return jnp.sqrt((apart**2).sum(axis=0))


def posterior(
    design: jax.Array, values: jax.Array, used: jax.Array, scale: jax.Array
) -> Posterior:
    """Ridge regression as a posterior (MacKay 1992, Bayesian interpolation).

    Args:
      design: f32[N, D].
      values: f32[N], of variance near 1.
      used: bool[N], False for rows to be left out.
      scale: f32[D], the prior standard deviation of each weight.
    """
    seen = jnp.where(used[:, None], design * scale[None], 0.0)
    known = jnp.where(used, values, 0.0)
    product = lambda a, b: jnp.matmul(a, b, precision="highest")
    precision = jnp.eye(len(scale)) + product(seen.T, seen) / NOISE
    factor = jnp.linalg.cholesky(precision)
    half = solve_triangular(factor, product(seen.T, known) / NOISE, lower=True)
    mean = solve_triangular(factor, half, lower=True, trans=1)
    left = known - seen @ mean
    surprise = ((mean**2).sum() + (left**2).sum() / NOISE) / used.sum()
    return Posterior(scale * mean, scale * jnp.sqrt(surprise), factor)


def regress(
    effects: Effects, genomes: jax.Array, values: jax.Array, used: jax.Array
) -> Posterior:
    """Fits main effects and pairs, with heredity between them (Chipman 1996).

    Main effects alone are fitted first: two genes are expected to matter together
    in the measure in which each of them does alone.

    Args:
      effects: the columns.
      genomes: i32[N, G].
      values: f32[N].
      used: bool[N], at least one; False for rows to be left out.

    Returns:
      The weights of `effects.design`, for the values as they are.
    """
    mean = jnp.where(used, values, 0.0).sum() / used.sum()
    apart = jnp.where(used, values - mean, 0.0)
    unit = jnp.sqrt((apart**2).sum() / used.sum())
    unit = jnp.where(unit > 0, unit, 1.0)
    design = effects.design(genomes)
    alone = 1 + len(effects.gene)
    first = posterior(design[:, :alone], apart / unit, used, jnp.ones(alone))
    squares = jax.ops.segment_sum(
        first.mean[1:] ** 2, effects.gene, num_segments=len(effects.table)
    )
    matters = jnp.sqrt(squares + NOISE**2)[effects.gene]
    together = matters[effects.pairs[0]] * matters[effects.pairs[1]]
    shares = PAIRS * together / together.sum()
    scale = jnp.concatenate([jnp.ones(alone), jnp.sqrt(shares)])
    both = posterior(design, apart / unit, used, scale)
    weights = (unit * both.mean).at[0].add(mean)
    return Posterior(weights, unit * both.scale, both.factor)
