"""Mamba: a state space whose steps depend on the input (arXiv:2312.00752).

B batch, T time, D channels of the residual stream, E inner channels, N states of
each inner channel, R rank of the step size. The scan lays states out as
[B, N, E], so that what every state of a channel does is one loop over channels.
"""

import math
from typing import NamedTuple, TypeAlias, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import MAMBA_STATE, MAMBA_TAPS, ArchitectureConfig
from arch.initial import vector_initializer
from arch.layers.dense import dense
from arch.layers.sublayer import is_real, look_back
from arch.mixers.chunks import scan_chunks
from arch.traits import Traits, along_channels

_SMALLEST_CHUNK = 16  # tokens; below it a second loop costs more than it saves


class MambaState(NamedTuple):
    """What Mamba remembers, however much it has read."""

    inputs: jax.Array  # [B, 3, E], the last inputs of the convolution
    hidden: jax.Array  # f32[B, N, E]


def mamba_state(
    config: ArchitectureConfig,
    batch: int,
    capacity: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> MambaState:
    """Nothing read; a recurrent state has no capacity."""
    inner = config.inner_channels
    return MambaState(
        jnp.zeros((batch, MAMBA_TAPS - 1, inner), dtype),
        jnp.zeros((batch, MAMBA_STATE, inner), jnp.float32),
    )


class Mamba(nn.Module):
    """Mamba-1 (Gu & Dao 2023, arXiv:2312.00752), figure 3 and algorithm 2.

    It reads no traits: its operations keep zero-padded channels at zero.
    """

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        state: MambaState | None,
        traits: Traits,
        dropout_key: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, MambaState | None]:
        """Reads T more tokens: [B, T, D] -> [B, T, D] and the state after them."""
        inputs, hidden = (None, None) if state is None else state
        both = self._project("in_proj", (2, self.config.inner_channels), x)
        x, gate = both[:, :, 0], both[:, :, 1]
        x, inputs = self._convolve(x, inputs, lengths)
        tokens = self._select(x, lengths)
        rates = -jnp.exp(self._tensor("A_log", MAMBA_STATE)).T
        y, hidden = selective_scan(rates, tokens, hidden)
        y = y + _scaled(tokens.x, self._tensor("D"))
        y = y * jax.nn.silu(gate.astype(jnp.float32))
        y = self._project("out_proj", (self.config.hidden_dim,), y.astype(self.dtype))
        return y, None if state is None else MambaState(inputs, hidden)

    def _project(self, name: str, features: tuple[int, ...], x: jax.Array) -> jax.Array:
        return dense(self.config, self.dtype, name, features)(x)

    def _tensor(self, name: str, *states: int) -> jax.Array:
        shape = (self.config.inner_channels, *states)
        return self.param(name, vector_initializer(name), shape)

    def _convolve(
        self, x: jax.Array, before: jax.Array | None, lengths: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The causal convolution of each channel, as four shifted products."""
        joined, inputs = look_back(x, before, MAMBA_TAPS - 1, lengths)
        shape = (MAMBA_TAPS, self.config.inner_channels)
        kernel = self.param("conv_kernel", vector_initializer("conv_kernel"), shape)
        y = along_channels(self._tensor("conv_bias"), x)
        for tap in range(MAMBA_TAPS):
            y = y + _scaled(joined[:, tap : tap + x.shape[1]], kernel[tap])
        return jax.nn.silu(y).astype(self.dtype), inputs

    def _select(self, x: jax.Array, lengths: jax.Array | None) -> "Tokens":
        """What the scan reads, all of it drawn from the token itself."""
        drawn = self._project("x_proj", (2 * MAMBA_STATE + self.config.step_rank,), x)
        write, read, step = jnp.split(drawn, (MAMBA_STATE, 2 * MAMBA_STATE), axis=-1)
        step = self._project("dt_proj", (x.shape[-1],), step).astype(jnp.float32)
        step = jax.nn.softplus(step + along_channels(self._tensor("dt_bias"), step))
        if lengths is not None:  # a step of size 0 leaves the states as they are
            step = jnp.where(is_real(lengths, x.shape[1])[..., None], step, 0)
        return Tokens(*(t.astype(jnp.float32) for t in (step, x, write, read)))


@jax.custom_vjp
def _scaled(x: jax.Array, weights: jax.Array) -> jax.Array:
    """[B, T, E], f32[E] -> f32[B, T, E]."""
    return x * along_channels(weights, x)


def _scaled_backward(
    inputs: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, weights = inputs
    of_x = grad * along_channels(weights, x)
    # For one long row the reduction takes 15 times as long on the CPU.
    of_weights = jnp.einsum("bte,bte->e", grad, x.astype(grad.dtype))
    return of_x.astype(x.dtype), of_weights


_scaled.defvjp(lambda *inputs: (_scaled(*inputs), inputs), _scaled_backward)


class Tokens(NamedTuple):
    """What the scan reads of each token: f32[B, T, ...], or of one token."""

    step: jax.Array  # [B, T, E], at least 0; where it is 0 nothing happens
    x: jax.Array  # [B, T, E]
    write: jax.Array  # [B, T, N], the paper's B
    read: jax.Array  # [B, T, N], the paper's C


# What a chunk is read from: states, rates, tokens.
_ChunkInputs: TypeAlias = tuple[jax.Array, jax.Array, Tokens]
# Gradients of the states and the rates, and the states after a token.
_Backward: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


def selective_scan(
    rates: jax.Array, tokens: Tokens, hidden: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The recurrence h = exp(step rates) h + step x write, y = sum of read h.

    States are never held for the whole sequence: those at the start of each
    chunk are kept, those inside are computed again for the gradient.

    Args:
      rates: f32[N, E], below 0.
      tokens: T of them.
      hidden: f32[B, N, E] before them; None for zeros.

    Returns:
      f32[B, T, E] and the states after the last token.
    """
    batch, length, _ = tokens.x.shape
    if hidden is None:
        hidden = jnp.zeros((batch, *rates.shape), jnp.float32)
    if length == 1:
        token = Tokens(*(t[:, 0] for t in tokens))
        hidden = _advance(hidden, rates, token)
        return _over_states(hidden, token.read)[:, None], hidden

    def read(hidden: jax.Array, chunk: Tokens) -> tuple[jax.Array, jax.Array]:
        chunk = Tokens(*(jnp.moveaxis(t, 1, 0) for t in chunk))
        hidden, y = _read_chunk(hidden, rates, chunk)
        return hidden, jnp.moveaxis(y, 0, 1)

    hidden, y = scan_chunks(read, hidden, tokens, chunk_size(length))
    return y, hidden


def chunk_size(length: int) -> int:
    """About the root of the length: as many states inside as between chunks."""
    return max(_SMALLEST_CHUNK, 1 << math.isqrt(length - 1).bit_length())


def _advance(hidden: jax.Array, rates: jax.Array, token: Tokens) -> jax.Array:
    decay = jnp.exp(token.step[:, None] * rates[None])
    added = token.step * token.x
    return decay * hidden + added[:, None] * token.write[:, :, None]


@jax.custom_vjp
def _read_chunk(
    hidden: jax.Array, rates: jax.Array, chunk: Tokens
) -> tuple[jax.Array, jax.Array]:
    """States and tokens, time first, -> states after them, f32[S, B, E]."""

    def read(hidden: jax.Array, token: Tokens) -> tuple[jax.Array, jax.Array]:
        hidden = _advance(hidden, rates, token)
        return hidden, _over_states(hidden, token.read)

    return jax.lax.scan(read, hidden, chunk)


def _read_chunk_forward(
    hidden: jax.Array, rates: jax.Array, chunk: Tokens
) -> tuple[tuple[jax.Array, jax.Array], _ChunkInputs]:
    return _read_chunk(hidden, rates, chunk), (hidden, rates, chunk)


def _read_chunk_backward(
    inputs: _ChunkInputs, grads: tuple[jax.Array, jax.Array]
) -> _ChunkInputs:
    """By hand: differentiating the loop takes 2 to 5 times as long, on the CPU."""
    hidden, rates, chunk = inputs

    def again(hidden: jax.Array, token: Tokens) -> tuple[jax.Array, jax.Array]:
        return _advance(hidden, rates, token), hidden

    def back(
        carry: _Backward, now: tuple[Tokens, jax.Array, jax.Array]
    ) -> tuple[_Backward, Tokens]:
        grad, of_rates, after = carry
        token, before, of_y = now
        grad = grad + of_y[:, None] * token.read[:, :, None]
        passed = grad * jnp.exp(token.step[:, None] * rates[None])
        exponent = passed * before  # the gradient for step x rates
        added = _over_states(grad, token.write)  # the gradient for step x x
        of_token = Tokens(
            step=_sum_states(exponent * rates[None]) + added * token.x,
            x=added * token.step,
            write=_over_channels(grad, token.step * token.x),
            read=_over_channels(after, of_y),
        )
        return (passed, of_rates + exponent * token.step[:, None], before), of_token

    of_hidden, of_y = grads
    last, before = jax.lax.scan(again, hidden, chunk)
    carry = (of_hidden, jnp.zeros_like(hidden), last)
    carry, of_chunk = jax.lax.scan(back, carry, (chunk, before, of_y), reverse=True)
    of_hidden, of_rates, _ = carry
    return of_hidden, of_rates.sum(axis=0), of_chunk


_read_chunk.defvjp(_read_chunk_forward, _read_chunk_backward)

# In a loop over tokens a reduction costs more than all else together (measured
# on the CPU); products with vectors, and additions, do not.


def _over_states(hidden: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.einsum("bne,bn->be", hidden, weights, precision="highest")


def _over_channels(hidden: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.einsum("bne,be->bn", hidden, weights, precision="highest")


def _sum_states(x: jax.Array) -> jax.Array:
    return cast(jax.Array, sum(x[:, state] for state in range(MAMBA_STATE)))
