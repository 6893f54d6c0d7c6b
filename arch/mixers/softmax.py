"""Causal softmax attention with the whole matrix of scores."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from arch.layers.dropout import dropout


class Scoring(NamedTuple):
    """How queries and keys are scored."""

    scale: float | jax.Array  # of their products: 1 / sqrt(channels of a head)
    slopes: jax.Array | None  # ALiBi's, f32[K, G]; None without it
    window: int | None = None  # tokens that are read, the query's own one of them


def attend_densely(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    positions: jax.Array,
    scoring: Scoring,
    dropout_key: jax.Array | None = None,
    rate: float | jax.Array = 0.0,
) -> jax.Array:
    """Each query's mean of the values up to its position, weighed by the keys.

    Args:
      q: [B, T, K, G, H], the G query heads of each of K key heads.
      k: [B, S, K, H], of positions 0 to S-1.
      v: [B, S, K, H].
      positions: i32[B or 1, T], of the queries.
      scoring: see `Scoring`.
      dropout_key: PRNG key, consumed; None switches dropout off.
      rate: of weights dropped, in [0, 1).

    Returns:
      [B, T, K, G, H] of v's dtype.
    """
    products = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.float32)
    weights = softmax(masked_scores(products, positions, 0, scoring))
    weights = dropout(dropout_key, weights, rate).astype(v.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v)


@jax.custom_vjp
def softmax(scores: jax.Array) -> jax.Array:
    """f32[..., S] -> f32[..., S], as `jax.nn.softmax`; without forward derivative."""
    return jax.nn.softmax(scores)


def _softmax_forward(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights = softmax(scores)
    return weights, weights


def _softmax_backward(weights: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    product, ones = weights * grad, jnp.ones(weights.shape[-1])
    # On a CPU a sum over a short last axis takes several times as long.
    total = jnp.einsum("...s,s->...", product, ones, precision="highest")
    return (product - weights * total[..., None],)


softmax.defvjp(_softmax_forward, _softmax_backward)


def masked_scores(
    products: jax.Array, positions: jax.Array, start: int | jax.Array, scoring: Scoring
) -> jax.Array:
    """Scores of keys for queries, minus infinity for keys in a query's future.

    Args:
      products: f32[B, K, G, T, S], of queries and keys.
      positions: i32[B or 1, T], of the queries.
      start: i32[], position of the first key.
      scoring: see `Scoring`.

    Returns:
      f32[B, K, G, T, S].
    """
    scores = products * scoring.scale
    seen = start + jnp.arange(products.shape[-1])
    # How far back each key lies, negative for the future.
    distance = (positions[:, :, None] - seen[None, None])[:, None, None]
    if scoring.slopes is not None:
        scores = scores - scoring.slopes[None, :, :, None, None] * distance
    read = distance >= 0
    if scoring.window is not None:
        read &= distance < scoring.window
    return jnp.where(read, scores, -jnp.inf)
