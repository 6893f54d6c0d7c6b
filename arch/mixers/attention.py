"""Causal multi-head attention (Vaswani et al. 2017, arXiv:1706.03762)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.dropout import dropout
from arch.initial import initializer
from arch.positions import alibi_slopes, rotate
from arch.sublayer import tokens_read
from arch.traits import Traits, is_encoding


class KeyValueCache(NamedTuple):
    """What attention remembers, S tokens at most."""

    keys: jax.Array  # [B, S, N, H], rotated already where rotary is used
    values: jax.Array  # [B, S, N, H]
    length: jax.Array  # i32[B], tokens read so far


def attention_state(
    config: ArchitectureConfig, batch: int, capacity: int, dtype=jnp.float32
) -> KeyValueCache:
    """An empty cache for `capacity` tokens."""
    shape = (batch, capacity, config.num_heads, config.head_dim)
    empty = jnp.zeros(shape, dtype)
    return KeyValueCache(empty, empty, jnp.zeros(batch, jnp.int32))


class Attention(nn.Module):
    """Softmax attention over all earlier tokens, O(T S) memory."""

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
          cache's capacity is not checked.
        """
        hidden, heads = self.config.hidden_dim, self.config.num_heads
        shape = (heads, self.config.head_dim)

        def project(name):
            return nn.DenseGeneral(
                shape,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=initializer(self.config, name),
                name=name,
            )(x)

        q, k, v = project("query"), project("key"), project("value")
        start = jnp.zeros(1, jnp.int32) if state is None else state.length
        positions = start[:, None] + jnp.arange(x.shape[1])[None]
        head_dim = traits.width // heads
        if (rotary := is_encoding(traits, "rope")) is not False:
            q = rotate(q, positions, head_dim, rotary)
            k = rotate(k, positions, head_dim, rotary)
        if state is None:
            seen = positions
        else:
            state = _append(state, k, v, tokens_read(lengths, x.shape[1]))
            k, v = state.keys.astype(q.dtype), state.values.astype(q.dtype)
            seen = jnp.arange(k.shape[1])[None]
        scores = jnp.einsum(
            "btnh,bsnh->bnts", q, k, preferred_element_type=jnp.float32
        ) / jnp.sqrt(jnp.float32(head_dim))
        # [B or 1, 1, T, S]: how far back each key lies, negative for the future.
        distance = (positions[:, :, None] - seen[:, None, :])[:, None]
        if (linear := is_encoding(traits, "alibi")) is not False:
            slopes = jnp.asarray(alibi_slopes(heads) * linear)[None, :, None, None]
            scores = scores - slopes * distance
        weights = jax.nn.softmax(jnp.where(distance >= 0, scores, -jnp.inf))
        weights = dropout(dropout_key, weights, traits.attention_dropout)
        mixed = jnp.einsum("bnts,bsnh->btnh", weights.astype(v.dtype), v)
        out = nn.DenseGeneral(
            hidden,
            axis=(-2, -1),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=initializer(self.config, "out"),
            name="out",
        )
        return out(mixed), state


def _append(cache: KeyValueCache, keys, values, number) -> KeyValueCache:
    """Writes each row's new tokens behind those it holds; `number` are real.

    What stands behind the real ones lies in the future of every query, until
    the next tokens overwrite it.
    """

    def write(old, new, at):
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (at, 0, 0))

    return KeyValueCache(
        jax.vmap(write)(cache.keys, keys, cache.length),
        jax.vmap(write)(cache.values, values, cache.length),
        cache.length + number,
    )
