"""Position encodings: sinusoidal absolute, rotary, and ALiBi."""

import math

import jax
import jax.numpy as jnp
import numpy as np

BASE = 10000.0


def sinusoidal(
    positions: jax.Array, channels: np.ndarray | jax.Array, width: int | jax.Array
) -> jax.Array:
    """Sines at even channels, cosines at odd ones (arXiv:1706.03762, 3.5).

    Args:
      positions: i32[...], from 0.
      channels: i32[D], the channel that each column is.
      width: channels of the whole encoding.

    Returns:
      f32[..., D].
    """
    pair = (channels // 2) * 2
    frequency = jnp.exp(-math.log(BASE) * pair / width)
    angle = _outer(positions, frequency)
    even = jnp.expand_dims(channels % 2 == 0, tuple(range(positions.ndim)))
    return jnp.where(even, jnp.sin(angle), jnp.cos(angle))


def rotate(
    x: jax.Array,
    positions: jax.Array,
    head_dim: int | jax.Array,
    on: bool | jax.Array = True,
    base: float = BASE,
    scaling: float = 1.0,
) -> jax.Array:
    """Rotary position embedding on interleaved pairs (arXiv:2104.09864).

    Args:
      x: [B, T, N, H]: channels 2i and 2i+1 turn together, a last odd one, which
        is padding, not at all.
      positions: i32[B or 1, T].
      head_dim: true channels of a head, which set the frequencies.
      on: where False, x comes back as it was.
      base: of the frequencies.
      scaling: positions are divided by it (arXiv:2306.15595).

    Returns:
      [B, T, N, H] of x's dtype.
    """
    if x.shape[-1] % 2:
        turned = rotate(x[..., :-1], positions, head_dim, on, base, scaling)
        return jnp.concatenate([turned, x[..., -1:]], axis=-1)
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    index = np.arange(pairs.shape[-2], dtype=np.float32)
    frequency = jnp.exp(-math.log(base) * 2 * index / head_dim) * on
    if scaling != 1:
        frequency = frequency / scaling
    angle = _outer(positions, frequency)[:, :, None, :]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    first, second = pairs[..., 0], pairs[..., 1]
    both = (first * cosine - second * sine, first * sine + second * cosine)
    return jnp.stack(both, axis=-1).reshape(x.shape).astype(x.dtype)


def alibi_slopes(heads: int) -> np.ndarray:
    """The slope of each head's linear bias (arXiv:2108.12409): f32[heads].

    A power of two n gives 2^(-8/n), 2^(-16/n), ...; other counts take the
    slopes of the power below, then every second one of the power above.
    """

    def of_power(n: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    below = 2 ** int(math.log2(heads))
    slopes = of_power(below) + of_power(2 * below)[::2][: heads - below]
    return np.asarray(slopes, np.float32)


def _outer(positions: jax.Array, frequency: jax.Array) -> jax.Array:
    broadcast = jnp.expand_dims(frequency, tuple(range(positions.ndim)))
    return positions[..., None].astype(jnp.float32) * broadcast
