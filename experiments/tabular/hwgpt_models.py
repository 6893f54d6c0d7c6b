"""HW-GPT-Bench-S (arXiv:2405.10299) as a problem: genomes, perplexity, parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

WIDTHS = (192, 384, 768)
DEPTHS = (10, 11, 12)
RATIOS = (2, 3, 4)
HEADS = (4, 8, 12)
DEEPEST = 12
# Perplexity and parameters, for a hypervolume between 0 and 1.21.
LOW = np.float32([21.4, 23_483_520])
HIGH = np.float32([42.9, 190_594_560])
REFERENCE = np.float32([1.1, 1.1])


class HWGPT(NamedTuple):
    """Genes: width, depth, 12 feed-forward ratios, 12 heads, bias or none."""

    @property
    def cardinality(self):
        return np.asarray([3, 3, *[3] * 2 * DEEPEST, 2], np.int32)

    def valid(self, genome):
        return jnp.bool_(True)

    def repair(self, genome):
        return genome


def canonical(genome: jax.Array) -> jax.Array:
    """i32[27] -> i32[27], with 0 for the layers beyond the depth."""
    layers = jnp.where(jnp.tile(_used(genome), 2), genome[2:-1], 0)
    return jnp.concatenate([genome[:2], layers, genome[-1:]])


def evaluator(path: Path) -> Callable[[jax.Array], jax.Array]:
    """i32[B, 27] -> f32[B, 2], scaled; the network is read from an npz file."""
    with np.load(path) as file:
        layers = [(file[f"fc{n}.weight"], file[f"fc{n}.bias"]) for n in range(1, 6)]

    def perplexity(genome):
        hot = _one_hot(genome)
        for weight, bias in layers[:-1]:
            hot = jax.nn.relu(weight @ hot + bias)
        return (layers[-1][0] @ hot + layers[-1][1])[0]

    def both(genome):
        found = jnp.stack([perplexity(genome), parameters(genome)])
        return (found - LOW) / (HIGH - LOW)

    return jax.vmap(both)


def scaled_parameters(genomes: jax.Array) -> jax.Array:
    """i32[B, 27] -> f32[B, 1], the second objective alone."""
    return ((jax.vmap(parameters)(genomes) - LOW[1]) / (HIGH - LOW)[1])[:, None]


def parameters(genome: jax.Array) -> jax.Array:
    """i32[27] -> f32[], exact as long as float32 is: to 2**24, then rounded."""
    width, depth = jnp.asarray(WIDTHS)[genome[0]], jnp.asarray(DEPTHS)[genome[1]]
    ratios = (jnp.asarray(RATIOS)[genome[2:14]] * _used(genome)).sum()
    heads = (jnp.asarray(HEADS)[genome[14:26]] * _used(genome)).sum()
    bias = 1 - genome[-1]
    # At most 1.9e8, so int32 holds it.
    total = 100510 * width + 4 * depth * width + 3 * width**2 * ratios
    total += 256 * width * heads
    total += bias * (2 * width * ratios + 2 * depth * width + 192 * heads)
    return total.astype(jnp.float32)


def embedding(genome: jax.Array) -> jax.Array:
    """i32[27] -> f32[], parameters of the embedding and the output."""
    return (100510 * jnp.asarray(WIDTHS)[genome[0]]).astype(jnp.float32)


def _used(genome):
    """i32[27] -> bool[12], which layers there are."""
    return jnp.arange(DEEPEST) < jnp.asarray(DEPTHS)[genome[1]]


def _one_hot(genome):
    """i32[27] -> f32[80], zeros for the layers beyond the depth."""
    used = _used(genome)[None, :, None]
    layers = jax.nn.one_hot(genome[2:-1].reshape(2, DEEPEST), 3) * used
    ends = [jax.nn.one_hot(genome[:2], 3).ravel(), jax.nn.one_hot(genome[-1], 2)]
    return jnp.concatenate([ends[0], layers.ravel(), ends[1]])
