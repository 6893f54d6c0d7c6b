"""Causal linear attention (Katharopoulos et al. 2020, arXiv:2006.16236).

The weight of key s for query t is the product phi(q_t) . phi(k_s) of positive
features, phi(x) = elu(x) + 1, and a query's weights are divided by their sum.
So all that later tokens need of the earlier ones is two sums, and reading on
costs the same at every position.

Positions:
- RoPE as in RoFormer's linear variant (arXiv:2104.09864, eq. 19): the features
  are rotated in the numerator, not in the sum that divides it, which so stays
  positive.
- ALiBi (arXiv:2108.12409) adds -slope (t - s) to the logarithm of a weight. The
  weight is multiplied by exp(-slope) for each token between, which is exactly
  an exponential decay of the state at each token, of numerator and denominator
  alike. Only differences of positions are exponentiated: they are at most 1,
  where the product exp(-slope t) exp(slope s) overflows.
- Absolute positions are in the embeddings: nothing is done here.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arch.config import ArchitectureConfig, Heads
from arch.layers.dense import dense
from arch.layers.heads import choose_heads, head_channels, join_heads, split_heads
from arch.layers.positions import alibi_slopes, rotate
from arch.layers.sublayer import is_real, tokens_read
from arch.traits import Traits, along_channels, is_encoding

# Tokens whose weights are one matrix, at most. On a CPU 32 and 128 are as fast,
# within a fifth, and 256 takes 1.2 to 3 times as long.
CHUNK = 64

# Least sum to divide by: where tokens are padding, and where all features are
# below e^-14. The quotient then goes to 0, and its gradient stays finite.
SMALLEST = 1e-12


class LinearState(NamedTuple):
    """What linear attention remembers: sums over the tokens read."""

    kv: jax.Array  # f32[B, N, H, E], of features times values; rotated with RoPE
    k: jax.Array  # f32[B, N, H], of features, never rotated
    length: jax.Array  # i32[B], tokens read so far


class Pair(NamedTuple):
    """Features of queries and of keys: f32[B, T, N, H]."""

    query: jax.Array
    key: jax.Array  # 0 where the token is not real


def linear_state(
    config: ArchitectureConfig,
    batch: int,
    capacity: int = 0,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> LinearState:
    """Nothing read; one size for any capacity, float32 for any dtype."""
    shape = (batch, config.num_heads, config.head_dim)
    return LinearState(
        jnp.zeros((*shape, config.head_dim)),
        jnp.zeros(shape),
        jnp.zeros(batch, jnp.int32),
    )


class LinearAttention(nn.Module):
    """Linear attention over all earlier tokens, O(T) work and memory."""

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        state: LinearState | None,
        traits: Traits,
        dropout_key: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, LinearState | None]:
        """Reads T more tokens: [B, T, D] -> [B, T, D], and the state after them.

        Arguments as `Attention` takes them; there are no probabilities to drop.
        """
        config, shape = self.config, (self.config.num_heads, self.config.head_dim)
        rows = [
            dense(config, self.dtype, name, shape)(x)
            for name in ("query", "key", "value")
        ]

        def mix(heads: Heads, *rows: jax.Array) -> tuple[jax.Array, LinearState | None]:
            mixed, after = _mix(config, heads.query, rows, state, traits, lengths)
            row = join_heads(mixed.astype(self.dtype), config.attention_channels)
            return row, after

        mixed, state = choose_heads(config, traits, mix, *rows)
        out = dense(config, self.dtype, "out", config.hidden_dim, (-2, -1))
        return out(split_heads(mixed, *shape)), state


def _mix(
    config: ArchitectureConfig,
    heads: int,
    rows: Sequence[jax.Array],
    state: LinearState | None,
    traits: Traits,
    lengths: jax.Array | None,
) -> tuple[jax.Array, LinearState | None]:
    """Queries, keys and values [B, T, ...] -> f32[B, T, N, E], and the state."""
    tokens, head_dim = rows[0].shape[1], traits.attention // heads
    size = head_channels(config.attention_channels, heads)
    query, key, values = (split_heads(row, heads, size) for row in rows)
    plain = Pair(features(query, head_dim), features(key, head_dim))
    if lengths is not None:
        real = is_real(lengths, tokens)[:, :, None, None]
        plain = Pair(plain.query, jnp.where(real, plain.key, 0))
    turned = None
    if (rotary := is_encoding(traits, "rope")) is not False:
        start = jnp.zeros(1, jnp.int32) if state is None else state.length
        positions = start[:, None] + jnp.arange(tokens)[None]
        turned = Pair(*(rotate(f, positions, head_dim, rotary) for f in plain))
    slopes = jnp.zeros(1)
    if (linear := is_encoding(traits, "alibi")) is not False:
        slopes = jnp.asarray(alibi_slopes(heads) * linear)
    return read(plain, turned, values, slopes, state, lengths)


def features(x: jax.Array, head_dim: int | jax.Array) -> jax.Array:
    """elu(x) + 1, and 0 on a head's padding: [..., H] -> f32[..., H]."""
    x = x.astype(jnp.float32)
    # Below 0 it is the exponential, whose digits expm1(x) + 1 loses. The inner
    # choice keeps large inputs, and their gradients, from overflowing.
    positive = jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))
    if isinstance(head_dim, int) and head_dim == x.shape[-1]:
        return positive
    return jnp.where(along_channels(np.arange(x.shape[-1]) < head_dim, x), positive, 0)


def read(
    plain: Pair,
    turned: Pair | None,
    values: jax.Array,
    slopes: jax.Array,
    state: LinearState | None = None,
    lengths: jax.Array | None = None,
) -> tuple[jax.Array, LinearState | None]:
    """Mean of the values of all tokens up to each, weighted by their features.

    Args:
      plain: features whose products divide.
      turned: features whose products weigh the values; None for the same.
      values: [B, T, N, E], of the dtype that enters matrix products.
      slopes: f32[N] or f32[1], at least 0: a token's weight falls by a factor of
        exp(slope) with each token that follows.
      state: what was read before; None: nothing was, and no state is returned.
      lengths: i32[B], real tokens of each row; None if all are.

    Returns:
      f32[B, T, N, E] and the state after the real tokens.
    """
    if state is not None and values.shape[1] == 1:
        return _read_token(plain, turned or plain, values, slopes, state, lengths)
    return _read_chunks(plain, turned, values, slopes, state, lengths)


def _read_token(
    plain: Pair,
    turned: Pair,
    values: jax.Array,
    slopes: jax.Array,
    state: LinearState,
    lengths: jax.Array | None,
) -> tuple[jax.Array, LinearState]:
    number = tokens_read(lengths, 1)
    tokens = jnp.reshape(jnp.asarray(number), (-1, 1, 1))
    fade = jnp.exp(-slopes[None, :, None] * tokens)
    key, turned_key, value = plain.key[:, 0], turned.key[:, 0], values[:, 0]
    state = LinearState(
        state.kv * fade[..., None] + turned_key[..., None] * value[:, :, None, :],
        state.k * fade + key,
        state.length + number,
    )
    top = jnp.einsum("bnh,bnhe->bne", turned.query[:, 0], state.kv)
    bottom = (plain.query[:, 0] * state.k).sum(axis=-1, keepdims=True)
    return (top / jnp.maximum(bottom, SMALLEST))[:, None], state


def _read_chunks(
    plain: Pair,
    turned: Pair | None,
    values: jax.Array,
    slopes: jax.Array,
    state: LinearState | None,
    lengths: jax.Array | None,
) -> tuple[jax.Array, LinearState | None]:
    """All chunks side by side: only their sums go from one to the next.

    Letters: C chunks; T and S their tokens; H channels of features, E of values.
    """
    batch, tokens, heads, _ = values.shape
    chunks = -(-tokens // CHUNK)
    size = -(-tokens // chunks)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, chunks * size - tokens), (0, 0), (0, 0)))
        x = x.reshape(batch, chunks, size, heads, x.shape[-1])
        return x.transpose(0, 3, 1, 2, 4)  # [B, N, C, S, H]

    number = tokens_read(lengths, tokens)
    fades = _fades(slopes, number, chunks, size)
    plain, turned, values = jax.tree.map(split, (plain, turned, values))
    product = functools.partial(_product, values.dtype)
    query, key = turned or plain
    weights = product("bncth,bncsh->bncts", query, key) * fades.within
    top = product("bncts,bncse->bncte", weights, values)
    if turned is not None:
        weights = product("bncth,bncsh->bncts", *plain) * fades.within
    bottom = weights.sum(axis=-1, keepdims=True)
    if chunks > 1 or state is not None:
        kv = product("bncsh,bncse->bnche", key * fades.after, values)
        k = (plain.key * fades.after).sum(axis=-2)
        (kv, k), end = _sums_before(kv, k, fades.chunk, state)
        top += product("bncth,bnche->bncte", query, kv) * fades.before
        rest = jnp.einsum("bncth,bnch->bnct", plain.query, k)
        bottom += rest[..., None] * fades.before
        if state is not None:
            state = LinearState(end[0], end[1], state.length + number)
    mixed = (top / jnp.maximum(bottom, SMALLEST)).transpose(0, 2, 3, 1, 4)
    return mixed.reshape(batch, chunks * size, heads, -1)[:, :tokens], state


def _product(
    dtype: jax.typing.DTypeLike, subscripts: str, x: jax.Array, y: jax.Array
) -> jax.Array:
    """Factors of the compute dtype, summed in float32."""
    x, y = x.astype(dtype), y.astype(dtype)
    return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)


_Sums: TypeAlias = tuple[jax.Array, jax.Array]  # of a `LinearState`


class _Fades(NamedTuple):
    """What is left of a weight after some tokens: [B or 1, N or 1, C or 1, ...]."""

    within: jax.Array  # [..., T, S], from key s to query t; 0 for later keys
    before: jax.Array  # [..., T, 1], from the last chunk's end to query t
    after: jax.Array  # [..., S, 1], from key s to the chunk's last real token
    chunk: jax.Array  # [...], over a chunk's real tokens


def _fades(
    slopes: jax.Array, number: int | jax.Array, chunks: int, size: int
) -> _Fades:
    def fade(tokens: np.ndarray | jax.Array) -> jax.Array:
        # [B or 1, C or 1, ...] -> [B or 1, N or 1, C or 1, ...]
        tokens = jnp.expand_dims(tokens, 1)
        return jnp.exp(-slopes.reshape(1, -1, *[1] * (tokens.ndim - 2)) * tokens)

    index = np.arange(size)
    apart = index[None, None, :, None] - index[None, None, None, :]
    starts = size * np.arange(chunks)[None]
    real = jnp.clip(jnp.reshape(jnp.asarray(number), (-1, 1)) - starts, 0, size)
    behind = real[:, :, None] - 1 - index[None, None]
    return _Fades(
        within=fade(np.maximum(apart, 0)) * (apart >= 0)[None],
        before=fade(index[None, None, :, None] + 1),
        after=fade(jnp.maximum(behind, 0)[..., None]),
        chunk=fade(real),
    )


def _sums_before(
    kv: jax.Array, k: jax.Array, fade: jax.Array, state: LinearState | None
) -> tuple[list[jax.Array], _Sums]:
    """Each chunk's sums -> all sums before each chunk, and those after the last."""
    if state is None:
        start = jnp.zeros_like(kv[:, :, 0]), jnp.zeros_like(k[:, :, 0])
    else:
        start = state.kv, state.k

    def step(before: _Sums, chunk: list[jax.Array]) -> tuple[_Sums, _Sums]:
        kv, k, fade = chunk
        fade = fade[:, :, None]
        return (before[0] * fade[..., None] + kv, before[1] * fade + k), before

    moved = [jnp.moveaxis(x, 2, 0) for x in (kv, k, fade)]
    end, before = jax.lax.scan(step, start, moved)
    return [jnp.moveaxis(x, 0, 2) for x in before], end
