"""Causal attention: multi-head, grouped, and flash.

Multi-head: Vaswani et al. 2017, arXiv:1706.03762. Grouped queries: Ainslie et
al. 2023, arXiv:2305.13245; with one key head multi-query attention, Shazeer
2019, arXiv:1911.02150. Flash: see `arch.mixers.flash`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig, Heads
from arch.layers.dense import dense
from arch.layers.heads import choose_heads, head_channels, join_heads, split_heads
from arch.layers.positions import alibi_slopes, rotate
from arch.layers.sublayer import tokens_read
from arch.mixers import flash
from arch.mixers.softmax import Scoring, attend_densely
from arch.traits import Traits, is_encoding


class KeyValueCache(NamedTuple):
    """What attention remembers, S tokens at most, of K key heads."""

    keys: jax.Array  # [B, S, K, H], rotated already where rotary is used
    values: jax.Array  # [B, S, K, H]
    length: jax.Array  # i32[B], tokens read so far


def attention_state(
    config: ArchitectureConfig,
    batch: int,
    capacity: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> KeyValueCache:
    """An empty cache for `capacity` tokens."""
    shape = (batch, capacity, config.key_value_heads, config.head_dim)
    empty = jnp.zeros(shape, dtype)
    return KeyValueCache(empty, empty, jnp.zeros(batch, jnp.int32))


class Attention(nn.Module):
    """Softmax attention over all earlier tokens.

    Query head n reads key head n // (N / K). Memory is O(T S), in the family
    "flash_attention" O(T + S).
    """

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        state: KeyValueCache | None,
        traits: Traits,
        dropout_key: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, KeyValueCache | None]:
        """Reads T more tokens.

        Args:
          x: [B, T, D].
          state: tokens read before, or None: there were none, and the caller
            does not want to go on from here (training).
          traits: see `Traits`.
          dropout_key: PRNG key, consumed; None switches dropout off.
          lengths: i32[B], real tokens of each row; None if all are.

        Returns:
          [B, T, D] and the state after the T tokens. Reading past the
          cache's capacity, padding included, is not checked.
        """
        config, channels = self.config, self.config.head_dim
        key_value = config.key_value_heads

        def project(name: str, heads: int) -> jax.Array:
            shape, bias = (heads, channels), config.qkv_bias
            return dense(config, self.dtype, name, shape, bias=bias)(x)

        q = project("query", config.num_heads)
        k, v = project("key", key_value), project("value", key_value)

        def mix(
            heads: Heads, *rows: jax.Array
        ) -> tuple[jax.Array, KeyValueCache | None]:
            queries = _Queries(config, heads, traits, dropout_key)
            return _attend(config, queries, rows, state, lengths)

        mixed, state = choose_heads(config, traits, mix, q, k, v)
        mixed = split_heads(mixed, config.num_heads, channels)
        out = dense(
            config, self.dtype, "out", config.hidden_dim, (-2, -1), config.out_bias
        )
        return out(mixed), state


class _Queries(NamedTuple):
    """How a model's own heads read."""

    config: ArchitectureConfig
    heads: Heads
    traits: Traits
    dropout_key: jax.Array | None

    @property
    def head_dim(self) -> int | jax.Array:
        """True channels of a head."""
        return self.traits.attention // self.heads.query

    def rotated(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """[B, T, heads, H], turned if it should be."""
        if (rotary := is_encoding(self.traits, "rope")) is False:
            return x
        base, scaling = self.config.rope_theta, self.config.rope_scaling
        if (turned := self.config.rotary_dim) is None:
            return rotate(x, positions, self.head_dim, rotary, base, scaling)
        first = rotate(x[..., :turned], positions, turned, rotary, base, scaling)
        return jnp.concatenate([first, x[..., turned:]], axis=-1)

    def scoring(self) -> Scoring:
        """See `Scoring`."""
        slopes = None
        if (linear := is_encoding(self.traits, "alibi")) is not False:
            query, key_value = self.heads
            by_group = alibi_slopes(query).reshape(key_value, -1)
            slopes = jnp.asarray(by_group * linear)
        return Scoring(self.head_dim**-0.5, slopes, self.config.sliding_window)


def _attend(
    config: ArchitectureConfig,
    queries: _Queries,
    rows: Sequence[jax.Array],
    state: KeyValueCache | None,
    lengths: jax.Array | None,
) -> tuple[jax.Array, KeyValueCache | None]:
    """Queries, keys and values [B, T, ...] -> [B, T, N H], and the state after them."""
    heads, tokens = queries.heads, rows[0].shape[1]
    size = head_channels(config.attention_channels, heads.query)
    start = jnp.zeros(1, jnp.int32) if state is None else state.length
    positions = start[:, None] + jnp.arange(tokens)[None]
    q = queries.rotated(split_heads(rows[0], heads.query, size), positions)
    k = queries.rotated(split_heads(rows[1], heads.key_value, size), positions)
    v = split_heads(rows[2], heads.key_value, size)
    after = state
    if after is not None:
        after = _append(after, k, v, tokens_read(lengths, tokens))
        k, v = after.keys.astype(q.dtype), after.values.astype(q.dtype)
    q = q.reshape(*q.shape[:2], heads.key_value, -1, size)
    read = (q, k, v, positions, queries.scoring())
    if config.arch_type == "flash_attention":
        mixed = flash.attend(*read, whole=state is None)
    else:
        rate = queries.traits.attention_dropout
        mixed = attend_densely(*read, queries.dropout_key, rate)
    return join_heads(mixed, config.attention_channels), after


def _append(
    cache: KeyValueCache,
    keys: jax.Array,
    values: jax.Array,
    number: int | jax.Array,
) -> KeyValueCache:
    """Writes each row's new tokens behind those it holds; `number` are real.

    What is behind the real ones lies in the future of every query, until
    the next tokens overwrite it.
    """

    def write(old: jax.Array, new: jax.Array, start: jax.Array) -> jax.Array:
        new = new.astype(old.dtype)
        return jax.lax.dynamic_update_slice(old, new, (start, 0, 0))

    return KeyValueCache(
        jax.vmap(write)(cache.keys, keys, cache.length),
        jax.vmap(write)(cache.values, values, cache.length),
        cache.length + number,
    )
