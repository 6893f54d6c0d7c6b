"""Normalisation over the channels of one token.

Statistics are float32 and divide by the true width, so that zero padding
changes nothing. A mean is of the true channels and is subtracted from those
alone: the padding stays zero, and so does its gradient.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import NORM_GROUPS
from arch.traits import Traits, along_channels, channel_index, choose

EPSILON = 1e-5


def layer_norm(
    x: jax.Array, width: int | jax.Array, epsilon: float = EPSILON
) -> jax.Array:
    """Ba et al. 2016 (arXiv:1607.06450): f32[..., D] -> f32[..., D]."""
    _, true = channel_index(x.shape[-1], width)
    inside = along_channels(true, x)
    mean = x.sum(axis=-1, keepdims=True, where=inside) / width
    centered = jnp.where(inside, x - mean, 0)
    variance = jnp.square(centered).sum(axis=-1, keepdims=True) / width
    return centered * jax.lax.rsqrt(variance + epsilon)


def rms_norm(
    x: jax.Array, width: int | jax.Array, epsilon: float = EPSILON
) -> jax.Array:
    """Zhang & Sennrich 2019 (arXiv:1910.07467): f32[..., D] -> f32[..., D]."""
    square = jnp.square(x).sum(axis=-1, keepdims=True) / width
    return x * jax.lax.rsqrt(square + epsilon)


def group_norm(
    x: jax.Array, width: int | jax.Array, epsilon: float = EPSILON
) -> jax.Array:
    """Wu & He 2018 (arXiv:1803.08494), 8 groups of each token's own channels.

    f32[..., D] -> f32[..., D]; nothing is summed along the sequence, so no
    token sees another.
    """
    groups = x.reshape(*x.shape[:-1], NORM_GROUPS, -1)
    _, true = channel_index(x.shape[-1], width)
    size = width // NORM_GROUPS
    inside = along_channels(true, x).reshape(
        *(1,) * (x.ndim - 1), NORM_GROUPS, groups.shape[-1]
    )
    mean = groups.sum(axis=-1, keepdims=True, where=inside) / size
    centered = jnp.where(inside, groups - mean, 0)
    variance = jnp.square(centered).sum(axis=-1, keepdims=True) / size
    return (centered * jax.lax.rsqrt(variance + epsilon)).reshape(x.shape)


NORMS = (layer_norm, rms_norm, group_norm)  # in the order of NORMALIZATIONS


class Norm(nn.Module):
    """The norm that the traits name, times a learned scale [D].

    Attributes:
      bias: adds a learned bias [D]. Its gradient is zero where the weights that
        read the channel are, so padding stays zero.
      epsilon: added to the mean of squares.
    """

    bias: bool = False
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: jax.Array, traits: Traits) -> jax.Array:
        """[..., D] -> [..., D] of the same dtype."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        branches = [
            lambda x, norm=norm: norm(x, traits.width, self.epsilon) for norm in NORMS
        ]
        if x.shape[-1] % NORM_GROUPS:  # no groups here: the config allows none
            branches = branches[:2]
        y = choose(traits.normalization, branches, x.astype(jnp.float32))
        y = y * along_channels(scale, y)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
            y = y + along_channels(bias, y)
        return y.astype(x.dtype)
