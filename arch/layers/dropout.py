"""Dropout whose draws do not depend on padding.

Each element's draw is a hash of the key and of the element's true index, so
a model that is padded to a wider shape drops what it would drop alone. The
hash fuses with the product it masks.
"""

import jax
import jax.numpy as jnp
import numpy as np


def dropout(
    key: jax.Array | None,
    x: jax.Array,
    rate: float | jax.Array,
    channels: np.ndarray | jax.Array | None = None,
) -> jax.Array:
    """Zeroes elements with probability `rate`, scales the others by 1/(1-rate).

    Args:
      key: PRNG key, consumed; None leaves x as it is (evaluation).
      x: [..., C].
      rate: in [0, 1); a Python 0 leaves x as it is.
      channels: i32[C], true index of each channel; 0 to C-1 if not given.

    Returns:
      [..., C] of x's dtype.
    """
    if key is None or (isinstance(rate, float | int) and rate == 0):
        return x
    kept = _uniform(key, x.shape, channels) >= rate
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def _uniform(
    key: jax.Array,
    shape: tuple[int, ...],
    channels: np.ndarray | jax.Array | None,
) -> jax.Array:
    """f32[shape] in [0, 1), a function of the key, the row and the channel."""
    seeds = jax.random.bits(key, (2,), jnp.uint32)
    rows = int(np.prod(shape[:-1]))
    row = _mix(jnp.arange(rows, dtype=jnp.uint32) ^ seeds[0]).reshape(*shape[:-1], 1)
    if channels is None:
        channels = np.arange(shape[-1])
    channel = _mix(jnp.asarray(channels, jnp.uint32) + seeds[1])
    channel = jnp.expand_dims(channel, tuple(range(len(shape) - 1)))
    bits = _mix(row + channel)
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 that changes half of the bits for each bit changed.

    The multiply-and-shift finaliser of MurmurHash3 (Appleby, public domain).
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
