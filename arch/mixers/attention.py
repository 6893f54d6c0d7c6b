"""Causal attention: multi-head, grouped, and flash.

Multi-head: Vaswani et al. 2017, arXiv:1706.03762. Grouped queries: Ainslie et
al. 2023, arXiv:2305.13245; with one key head multi-query attention, Shazeer
2019, arXiv:1911.02150. Flash: see `arch.mixers.flash`.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.initial import initializer
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
        config = self.config
        start = jnp.zeros(1, jnp.int32) if state is None else state.length
        positions = start[:, None] + jnp.arange(x.shape[1])[None]
        q, k, v = (
            self._project(x, name, positions, traits)
            for name in ("query", "key", "value")
        )
        if state is not None:
            state = _append(state, k, v, tokens_read(lengths, x.shape[1]))
            k, v = state.keys.astype(q.dtype), state.values.astype(q.dtype)
        q = q.reshape(*q.shape[:2], config.key_value_heads, -1, config.head_dim)
        read = (q, k, v, positions, _scoring(config, traits))
        if config.arch_type == "flash_attention":
            mixed = flash.attend(*read, whole=state is None)
        else:
            mixed = attend_densely(*read, dropout_key, traits.attention_dropout)
        mixed = mixed.reshape(*mixed.shape[:2], config.num_heads, config.head_dim)
        out = nn.DenseGeneral(
            config.hidden_dim,
            axis=(-2, -1),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=initializer(config, "out"),
            name="out",
        )
        return out(mixed), state

    def _project(
        self, x: jax.Array, name: str, positions: jax.Array, traits: Traits
    ) -> jax.Array:
        """[B, T, D] -> [B, T, heads, H], rotated if it should be."""
        config = self.config
        heads = config.num_heads if name == "query" else config.key_value_heads
        projected = nn.DenseGeneral(
            (heads, config.head_dim),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=initializer(config, name),
            name=name,
        )(x)
        rotary = is_encoding(traits, "rope")
        if name != "value" and rotary is not False:
            head_dim = _true_head_dim(config, traits)
            projected = rotate(projected, positions, head_dim, rotary)
        return projected


def _true_head_dim(config: ArchitectureConfig, traits: Traits) -> int | jax.Array:
    return traits.width // config.num_heads


def _scoring(config: ArchitectureConfig, traits: Traits) -> Scoring:
    slopes = None
    if (linear := is_encoding(traits, "alibi")) is not False:
        by_group = alibi_slopes(config.num_heads).reshape(config.key_value_heads, -1)
        slopes = jnp.asarray(by_group * linear)
    return Scoring(_true_head_dim(config, traits) ** -0.5, slopes)


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
