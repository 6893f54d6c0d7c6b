"""Softmax attention with memory linear in the sequence.

FlashAttention-2 (Dao 2023, arXiv:2307.08691): scores exist a block at a time, a
row's maximum and sum go along from block to block, and the backward pass
computes the scores again. Blocks in the future are not visited.
"""

import functools
import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from arch.mixers.softmax import Scoring, attend_densely, masked_scores

# Queries and keys of a block, at most.
BLOCK = 128

# Up to here, as in decoding, the whole matrix takes less time.
DENSE_TOKENS = 16

# What cuDNN's flash attention takes; on Hopper it takes larger heads too.
_CUDNN_DTYPES = (jnp.bfloat16, jnp.float16)
_CUDNN_HEAD_DIM = 128
_CUDNN_CAPABILITY = 8  # Ampere


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    positions: jax.Array,
    scoring: Scoring,
    whole: bool,
) -> jax.Array:
    """As `attend_densely`, in the way that suits the shapes and the device.

    Args:
      q, k, v, positions, scoring: see `attend_densely`.
      whole: whether queries and keys are the same tokens.
    """
    way = choose_way(q, scoring, whole)
    if way == "cudnn":
        return attend_with_cudnn(q, k, v, scoring)
    some = attend_densely if way == "dense" else attend_by_blocks
    return some(q, k, v, positions, scoring)


def choose_way(q: jax.Array, scoring: Scoring, whole: bool) -> str:
    """ "dense", "blocks" or "cudnn"; arguments as `attend`."""
    if q.shape[1] <= DENSE_TOKENS or scoring.window is not None:
        return "dense"
    head_dim = q.shape[-1]
    served = (
        whole
        and q.dtype in _CUDNN_DTYPES
        and head_dim % 8 == 0
        and head_dim <= _CUDNN_HEAD_DIM
        and isinstance(scoring.scale, float)  # a constant, not data
        and scoring.slopes is None  # a bias would take quadratic memory
    )
    return "cudnn" if served and has_cudnn() else "blocks"


def has_cudnn() -> bool:
    """Whether programs run by default where cuDNN has flash attention."""
    # "9.0" on NVIDIA's devices, "gfx942" on AMD's, nothing elsewhere.
    capability = getattr(jax.devices()[0], "compute_capability", "")
    major = capability.partition(".")[0]
    return major.isdigit() and int(major) >= _CUDNN_CAPABILITY


def attend_with_cudnn(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    scoring: Scoring,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """`attend` where cuDNN serves; "xla" is the same function on any device."""
    mixed = jax.nn.dot_product_attention(
        q.reshape(*q.shape[:2], -1, q.shape[-1]),
        k,
        v,
        scale=float(scoring.scale),
        # Aligned top left: right for as many keys as queries.
        is_causal=True,
        implementation=implementation,
    )
    return mixed.reshape(q.shape)


def attend_by_blocks(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    positions: jax.Array,
    scoring: Scoring,
    block: int = BLOCK,
) -> jax.Array:
    """As `attend_densely`, with scores of one block of queries and keys at a time.

    It has a gradient, but no forward derivative and no second one.

    Args:
      q, k, v, positions: see `attend_densely`.
      scoring: see `Scoring`, without a window; it has no gradient.
      block: queries and keys of a block, at most.
    """
    mixed = _attend(
        jnp.moveaxis(_split(q, block), 2, -2),
        jnp.moveaxis(_split(k, block), 2, -2),
        jnp.moveaxis(_split(v, block), 2, -2),
        _split(positions, block),
        scoring,
    )
    mixed = jnp.moveaxis(jnp.moveaxis(mixed, -2, 2), 0, 1)
    return mixed.reshape(len(q), -1, *q.shape[2:])[:, : q.shape[1]]


def _split(x: jax.Array, block: int) -> jax.Array:
    """[B, T, ...] -> [blocks, B, block, ...], padded with zeros behind."""
    tokens = x.shape[1]
    number = math.ceil(tokens / block)
    size = math.ceil(tokens / number)  # blocks of one size pad the least
    widths = [(0, 0), (0, number * size - tokens)] + [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, widths)
    return jnp.moveaxis(x.reshape(len(x), number, size, *x.shape[2:]), 1, 0)


# A row's maximum, sum and mean so far; or gradients of queries, keys and values.
_Sums: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
# A block of queries, their positions, normalizers, output gradients and delta.
_Block: TypeAlias = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
_Grads: TypeAlias = tuple[jax.Array, jax.Array]  # of keys and values
# What `_attend` reads, what it returns, and its rows' normalizers.
_Saved: TypeAlias = tuple[
    jax.Array, jax.Array, jax.Array, jax.Array, Scoring, jax.Array, jax.Array
]


@jax.custom_vjp
def _attend(
    q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array, scoring: Scoring
) -> jax.Array:
    """Blocks q [I, B, K, G, T, H], k and v [J, B, K, S, H], positions [I, B, T]."""
    return _forward(q, k, v, positions, scoring)[0]


def _forward(
    q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array, scoring: Scoring
) -> tuple[jax.Array, _Saved]:
    def read(block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows, where = block

        def see(j: jax.Array, so_far: _Sums) -> _Sums:
            top, total, mixed = so_far
            scores = _scores(rows, k, j, where, scoring)
            # Every row sees the first key, which makes its maximum finite.
            higher = jnp.maximum(top, scores.max(axis=-1))
            rescale = jnp.exp(top - higher)
            weights = jnp.exp(scores - higher[..., None])
            more = _sum("bkgts,bksh->bkgth", weights.astype(v.dtype), v[j])
            total = total * rescale + weights.sum(axis=-1)
            return higher, total, mixed * rescale[..., None] + more

        zeros = jnp.zeros(rows.shape, jnp.float32)
        start = (zeros[..., 0] - jnp.inf, zeros[..., 0], zeros)
        top, total, mixed = jax.lax.fori_loop(0, _reach(where, k), see, start)
        return (mixed / total[..., None]).astype(q.dtype), top + jnp.log(total)

    mixed, normalizer = jax.lax.map(read, (q, positions))
    return mixed, (q, k, v, positions, scoring, mixed, normalizer)


def _backward(
    saved: _Saved, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None, None]:
    q, k, v, positions, scoring, mixed, normalizer = saved
    # A row's mean gradient by its scores' weights, which the softmax takes off.
    delta = _sum("ibkgth,ibkgth->ibkgt", mixed, grad)

    def read(so_far: _Grads, block: _Block) -> tuple[_Grads, jax.Array]:
        rows, where, norm, d_out, mean = block

        def see(j: jax.Array, grads: _Sums) -> _Sums:
            d_rows, d_k, d_v = grads
            weights = jnp.exp(_scores(rows, k, j, where, scoring) - norm[..., None])
            d_scores = _sum("bkgth,bksh->bkgts", d_out, v[j]) - mean[..., None]
            d_scores = (weights * d_scores * scoring.scale).astype(q.dtype)
            d_rows += _sum("bkgts,bksh->bkgth", d_scores, k[j])
            d_k = d_k.at[j].add(_sum("bkgts,bkgth->bksh", d_scores, rows))
            weights = weights.astype(v.dtype)
            d_v = d_v.at[j].add(_sum("bkgts,bkgth->bksh", weights, d_out))
            return d_rows, d_k, d_v

        start = (jnp.zeros(rows.shape, jnp.float32), *so_far)
        d_rows, d_k, d_v = jax.lax.fori_loop(0, _reach(where, k), see, start)
        return (d_k, d_v), d_rows.astype(q.dtype)

    # Sums over the blocks of queries, in float32.
    empty = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    blocks = (q, positions, normalizer, grad, delta)
    (d_k, d_v), d_q = jax.lax.scan(read, empty, blocks)
    return d_q, d_k.astype(k.dtype), d_v.astype(v.dtype), None, None


_attend.defvjp(_forward, _backward)

_sum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _scores(
    rows: jax.Array,
    k: jax.Array,
    j: jax.Array,
    positions: jax.Array,
    scoring: Scoring,
) -> jax.Array:
    """A block of queries with the j-th block of keys: f32[B, K, G, T, S]."""
    products = _sum("bkgth,bksh->bkgts", rows, k[j])
    return masked_scores(products, positions, j * k.shape[-2], scoring)


def _reach(positions: jax.Array, k: jax.Array) -> jax.Array:
    """How many blocks of keys the queries see; the others lie in their future."""
    return positions.max() // k.shape[-2] + 1
