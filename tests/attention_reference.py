"""Attention written from its formula, and layers to hold against it."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from arch import ArchitectureConfig
from arch.mixers.attention import Attention
from arch.traits import traits_of

CONFIG = ArchitectureConfig(
    arch_type="transformer",
    num_layers=1,
    hidden_dim=32,
    num_heads=4,
    ffn_multiplier=1.0,
    normalization="rmsnorm",
    activation="gelu",
    position_encoding="rope",
)


def config_of(family, position="rope", **changes):
    return dataclasses.replace(
        CONFIG, arch_type=family, position_encoding=position, **changes
    )


def attention(q, k, v, positions, scale, slopes):
    """f64 [B, T, N, H]: query head n reads key head n // (N / K), key s at s.

    Args:
      q, k, v: [B, T, N, H], [B, S, K, H], [B, S, K, H].
      positions: [B, T] of the queries.
      scale: of the products.
      slopes: [N], of the distance.
    """
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    mixed = np.zeros(q.shape)
    for row, t, head in np.ndindex(q.shape[:3]):
        group = head // (q.shape[2] // k.shape[2])
        seen = np.arange(positions[row, t] + 1)
        scores = k[row, seen, group] @ q[row, t, head] * scale
        scores = scores - slopes[head] * (positions[row, t] - seen)
        mixed[row, t, head] = special.softmax(scores) @ v[row, seen, group]
    return mixed


def rotated(x):
    """[B, T, N, H] from position 0 on, each pair of channels a complex number."""
    size = x.shape[-1]
    theta = 10000.0 ** (-np.arange(0, size, 2) / size)
    turns = np.exp(1j * np.outer(np.arange(x.shape[1]), theta))
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * turns[None, :, None]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def layer_by_hand(config, x, weights):
    """f64 [B, T, D], a whole attention layer."""
    q, k, v = (
        np.einsum("btd,dnh->btnh", x.astype(np.float64), weights[name]["kernel"])
        for name in ("query", "key", "value")
    )
    if config.position_encoding == "rope":
        q, k = rotated(q), rotated(k)
    slopes = np.zeros(config.num_heads)
    if config.position_encoding == "alibi":  # of a power of two of heads
        slopes = 2.0 ** (-8 * np.arange(1, config.num_heads + 1) / config.num_heads)
    positions = np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])
    scale = math.sqrt(config.num_heads / config.hidden_dim)
    mixed = attention(q, k, v, positions, scale, slopes)
    return np.einsum("btnh,nhd->btd", mixed, weights["out"]["kernel"])


def weights_of(config, seed=0):
    """Weights that make sharp attention, and outputs of a deviation near 1."""
    rng = np.random.default_rng(seed)
    hidden, size = config.hidden_dim, config.head_dim
    heads, groups = config.num_heads, config.key_value_heads
    shapes = {
        "query": (hidden, heads, size),
        "key": (hidden, groups, size),
        "value": (hidden, groups, size),
        "out": (heads, size, hidden),
    }
    sharp = {"query": 1.5, "key": 1.5}
    return {
        name: {
            "kernel": rng.normal(
                0, sharp.get(name, 1) / math.sqrt(hidden), shape
            ).astype(np.float32)
        }
        for name, shape in shapes.items()
    }


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(config, weights, x, state=None, traits=None, key=None, lengths=None):
    """A layer's (y, state), in x's dtype."""
    layer = Attention(config, x.dtype)
    traits = traits_of(config) if traits is None else traits
    return layer.apply({"params": weights}, x, state, traits, key, lengths)


def as_data(config):
    return jax.tree.map(jnp.asarray, traits_of(config))


def slopes_of(config, weights, x, ahead):
    """What a layer gives, and the gradients of its weights and of x.

    Position encodings share a program: traits are data.
    """
    shape = dataclasses.replace(config, position_encoding="rope")
    return _differentiate(shape, weights, x, ahead.astype(x.dtype), as_data(config))


@functools.partial(jax.jit, static_argnums=0)
def _differentiate(config, weights, x, ahead, traits):
    layer = lambda weights, x: run(config, weights, x, traits=traits)[0]
    y, pull = jax.vjp(layer, weights, x)
    return y, *pull(ahead)
