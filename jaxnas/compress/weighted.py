"""Rounding to blocks with the data in view: scales by importance, and GPTQ.

Codes and scales are those of `jaxnas.compress.quantize`, chosen otherwise: the file
that is shipped has the same format.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.compress.quantize import BLOCK, Blocks, to_blocks

_LIMITS = {"int8": (-127, 127), "int4": (-8, 7)}
# Scales that are tried, as shares of the one that rounding to nearest takes; int4's
# codes reach farther on one side than on the other, so both signs are.
_SHARES = {
    "int8": tuple(np.linspace(0.95, 1.02, 15)),
    "int4": tuple(sign * x for sign in (1, -1) for x in np.linspace(0.7, 1.2, 21)),
}
# A few of them, for each step of a training.
_FEW = {
    "int8": (0.98,),
    "int4": tuple(sign * x for sign in (1, -1) for x in np.linspace(0.8, 1.1, 4)),
}
_DAMPING = 0.01  # of the mean curvature, added to each; GPTQ's own


class Moments(NamedTuple):
    """Of what a matrix is multiplied with: f64[inputs, inputs], sums of products."""

    products: np.ndarray

    @property
    def squares(self) -> np.ndarray:
        """f64[inputs]: how much each input counts."""
        return np.diagonal(self.products)


# (rows f32[R, inputs], moments, quantization) -> blocks [R, inputs / 32, 32].
Rounding = Callable[[np.ndarray, Moments, str], Blocks]


def by_importance(rows: np.ndarray, moments: Moments, quantization: str) -> Blocks:
    """To nearest, with the scale that makes the weighted squared error least.

    An error counts by the mean square of the input that it is multiplied with, as
    llama.cpp's importance matrix has it.
    """
    weights = jnp.asarray(moments.squares / max(1e-30, moments.squares.mean()))
    given = jnp.asarray(rows, jnp.float32), weights.astype(jnp.float32)
    return _best(*given, quantization)


def least_error(rows: jax.Array, quantization: str) -> Blocks:
    """f32[R, inputs] -> blocks of about the least squared error; to be jitted.

    A training that rounds in each step has time for it (arXiv:1308.3432).
    """
    return _least_error(
        rows, jnp.ones(rows.shape[-1]), quantization, _FEW[quantization]
    )


def gptq(rows: np.ndarray, moments: Moments, quantization: str) -> Blocks:
    """Column by column; those behind make up for the error so far.

    Frantar et al. 2022, arXiv:2210.17323, with `by_importance`'s scales, which a block
    gets when its first column's turn comes.
    """
    length, padding = rows.shape[1], -rows.shape[1] % BLOCK
    weights = np.pad(rows.astype(np.float64), ((0, 0), (0, padding)))
    upper = _inverse_root(np.pad(moments.products, (0, padding)), length)
    squares = np.pad(moments.squares, (0, padding))
    found = []
    for begin in range(0, weights.shape[1], BLOCK):
        inside, end = slice(begin, begin + BLOCK), begin + BLOCK
        own = Moments(np.diag(squares[inside]))
        block = by_importance(weights[:, inside].astype(np.float32), own, quantization)
        scales = np.asarray(block.scales)[:, 0]
        codes, errors = _in_turn(
            weights[:, inside], scales, upper[inside, inside], _LIMITS[quantization]
        )
        weights[:, end:] -= errors @ upper[inside, end:]
        found.append((codes, scales))
    codes, scales = (np.stack(each, axis=1) for each in zip(*found, strict=True))
    return Blocks(jnp.asarray(codes, jnp.int8), jnp.asarray(scales, jnp.float16))


def _in_turn(
    block: np.ndarray, scales: np.ndarray, upper: np.ndarray, limits: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of a block's columns, each after what those before it left undone.

    Args:
      block: f64[R, 32].
      scales: f16[R].
      upper: f64[32, 32], of `_inverse_root`.
      limits: of codes.

    Returns:
      f64[R, 32] twice: codes, and errors over the diagonal of `upper`.
    """
    scale = scales.astype(np.float64)
    inverse = np.where(scale == 0, 0, 1 / np.where(scale == 0, 1, scale))
    block, codes, errors = block.copy(), np.zeros_like(block), np.zeros_like(block)
    for column, turn in enumerate(upper):
        values = block[:, column]
        codes[:, column] = np.clip(np.round(values * inverse), *limits)
        errors[:, column] = (values - codes[:, column] * scale) / turn[column]
        block[:, column:] -= np.outer(errors[:, column], turn[column:])
    return codes, errors


def _inverse_root(products: np.ndarray, length: int) -> np.ndarray:
    """Upper triangular: the Cholesky factor of the damped products' inverse."""
    diagonal = np.diagonal(products)
    damping = _DAMPING * diagonal[:length].mean()
    # An input that is always 0, or padding, is there for no one.
    added = np.where(diagonal == 0, 1.0, max(damping, 1e-30))
    return np.linalg.cholesky(np.linalg.inv(products + np.diag(added))).T


@functools.partial(jax.jit, static_argnums=2)
def _best(rows: jax.Array, weights: jax.Array, quantization: str) -> Blocks:
    return _least_error(rows, weights, quantization, _SHARES[quantization])


def _least_error(
    rows: jax.Array, weights: jax.Array, quantization: str, shares: Sequence[float]
) -> Blocks:
    """f32[R, inputs], f32[inputs] -> the blocks of the best scales that are tried."""
    low, high = _LIMITS[quantization]
    padding = -rows.shape[-1] % BLOCK
    groups = jnp.pad(rows, ((0, 0), (0, padding))).reshape(len(rows), -1, BLOCK)
    weights = jnp.pad(weights, (0, padding)).reshape(1, -1, BLOCK)
    nearest = to_blocks(rows, quantization)

    def coded(scales: jax.Array) -> tuple[Blocks, jax.Array]:
        stored = scales.astype(jnp.float16)
        step = stored.astype(jnp.float32)
        inverse = jnp.where(step == 0, 0, 1 / jnp.where(step == 0, 1, step))
        codes = jnp.clip(jnp.round(groups * inverse[..., None]), low, high)
        error = jnp.square(groups - codes * step[..., None])
        return Blocks(codes.astype(jnp.int8), stored), (error * weights).sum(axis=-1)

    def better(best: tuple[Blocks, jax.Array], scales: jax.Array) -> tuple:
        found = coded(scales)
        less = found[1] < best[1]
        codes = jnp.where(less[..., None], found[0].codes, best[0].codes)
        kept = jnp.where(less, found[0].scales, best[0].scales)
        return Blocks(codes, kept), jnp.minimum(found[1], best[1])

    def tried(best: tuple, share: jax.Array) -> tuple[tuple, None]:
        return better(best, share * nearest.scales.astype(jnp.float32)), None

    step = nearest.scales.astype(jnp.float32)[..., None]
    error = jnp.square(groups - nearest.codes * step) * weights
    begin = nearest, error.sum(axis=-1)
    best, _ = jax.lax.scan(tried, begin, jnp.asarray(shares, jnp.float32))
    # For the codes that were found the best scale has a formula.
    codes = best[0].codes.astype(jnp.float32)
    over = (weights * jnp.square(codes)).sum(axis=-1)
    exact = (weights * groups * codes).sum(axis=-1) / jnp.maximum(over, 1e-30)
    return better(best, exact)[0]
