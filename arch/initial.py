"""Initial weights: one rule, for the Flax modules and for drawing on the host.

Matrices are normal with variance 1/fan_in; those that write to the residual
stream are divided by sqrt(2 x layers) (Radford et al. 2019, GPT-2), so that
the stream's variance does not grow with depth. The head starts small, at 0.02,
so that the first loss is close to log(V). Embeddings have deviation 1, for a
token must stand out in a stream to which every layer adds about as much
(measured in experiments/initial). A tied matrix is a head too, and starts as one.
Tensors that are not matrices start as their papers say, see `VECTORS`.
"""

import functools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arch.config import ArchitectureConfig
from arch.layout import fan_in, layout_of

_Array = TypeVar("_Array", np.ndarray, jax.Array)


class Rule(Protocol):
    """(numpy or jax.numpy, draws from [0, 1) of a tensor's shape) -> its values."""

    def __call__(self, xp: ModuleType, drawn: _Array, /) -> _Array: ...


HEAD_DEVIATION = 0.02
_WRITING = (
    "out",
    "down",
    "out_proj",
    "output",
)  # modules whose output joins the residual stream


def embedding_deviation(config: ArchitectureConfig) -> float:
    """Standard deviation of the token embeddings."""
    return HEAD_DEVIATION if config.tie_embeddings else 1.0


def deviation(config: ArchitectureConfig, module: str, inputs: int) -> float:
    """Standard deviation of a module's matrix with `inputs` summed inputs."""
    if module == "embed":
        return embedding_deviation(config)
    if module in ("head", "positions"):
        return HEAD_DEVIATION
    layers = 2 * config.num_layers if module in _WRITING else 1
    return 1 / math.sqrt(inputs * layers)


def initializer(config: ArchitectureConfig, module: str) -> nn.initializers.Initializer:
    """The rule as a Flax initializer of one unstacked matrix."""

    def init(
        key: jax.Array,
        shape: Sequence[int],
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> jax.Array:
        # Flax hands over [inputs, outputs], whatever axes the kernel has.
        scale = deviation(config, module, inputs=shape[0])
        return scale * jax.random.normal(key, shape, dtype)

    return init


def vector_initializer(name: str) -> nn.initializers.Initializer:
    """The rule of `VECTORS` as a Flax initializer of one unstacked tensor."""

    def init(
        key: jax.Array,
        shape: Sequence[int],
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> jax.Array:
        return VECTORS[name](jnp, jax.random.uniform(key, shape)).astype(dtype)

    return init


def draw_parameters(model: nn.Module, key: jax.Array) -> dict:
    """A language model's initial parameters, drawn by NumPy: nothing compiles.

    The distribution is that of `model.init`, the draws are not. Each tensor
    has a stream of its own, from the key and the tensor's path.

    Args:
      model: a `LanguageModel`.
      key: PRNG key, consumed.

    Returns:
      The "params" collection as float32 NumPy arrays.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()

    def draw(
        path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct
    ) -> np.ndarray:
        layout = layout_of(path)
        stream = [*seed, *"/".join(entry.key for entry in path).encode()]
        rng = np.random.default_rng(stream)
        if not layout.matrix:
            drawn = rng.random(leaf.shape, np.float32)
            return VECTORS[path[-1].key](np, drawn).astype(np.float32)
        values = rng.standard_normal(leaf.shape, np.float32)
        inputs = fan_in(layout, leaf.shape)
        return values * np.float32(deviation(model.config, layout.module, inputs))

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model))


def shapes_of(model: nn.Module) -> dict:
    """A language model's "params" as `jax.ShapeDtypeStruct`s; traced once a model."""
    return jax.tree.map(lambda leaf: leaf, _traced(model))


@functools.lru_cache(maxsize=512)  # what a run asks for again and again
def _traced(model: nn.Module) -> dict:
    tokens = jnp.zeros((1, 1), jnp.int32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), tokens)["params"])


def _conv_kernel(xp: ModuleType, drawn: _Array) -> _Array:
    # Uniform with variance 1/(3 taps), as the published code leaves it.
    return (2 * drawn - 1) / math.sqrt(drawn.shape[-2])


def _dt_bias(xp: ModuleType, drawn: _Array) -> _Array:
    # Step sizes start between 0.001 and 0.1, uniform in the logarithm; this is
    # the inverse of the softplus that follows.
    low, high = math.log(1e-3), math.log(1e-1)
    step = xp.exp(low + (high - low) * drawn)
    return step + xp.log(-xp.expm1(-step))


def _log_counts(xp: ModuleType, drawn: _Array) -> _Array:
    # S4D-real: the states of a channel decay at rates 1 to N.
    return xp.broadcast_to(xp.log(1.0 + xp.arange(drawn.shape[-1])), drawn.shape)


def _of_channel(rule: Rule) -> Rule:
    """A rule of each channel's place: 0 for the first, 1 for the last."""

    def values(xp: ModuleType, drawn: _Array) -> _Array:
        channels = drawn.shape[-1]
        place = xp.arange(channels) / max(1, channels - 1)
        return xp.broadcast_to(rule(xp, place), drawn.shape)

    return values


def _bonus(xp: ModuleType, place: _Array) -> _Array:
    # Neighbouring channels differ, so that they learn different things.
    zigzag = (xp.arange(place.shape[0]) + 1) % 3 - 1
    return math.log(0.3) + 0.5 * zigzag


# Tensors that are not matrices, by their name. Mamba: arXiv:2312.00752, section 3.6.
# RWKV: arXiv:2305.13048, appendix; its middle layer's values for every layer.
VECTORS: dict[str, Rule] = {
    "scale": lambda xp, drawn: xp.ones_like(drawn),
    "bias": lambda xp, drawn: xp.zeros_like(drawn),
    "conv_kernel": _conv_kernel,
    "conv_bias": lambda xp, drawn: xp.zeros_like(drawn),
    "dt_bias": _dt_bias,
    "A_log": _log_counts,
    "D": lambda xp, drawn: xp.ones_like(drawn),
    "mix_key": _of_channel(lambda xp, place: place**0.5),
    "mix_value": _of_channel(lambda xp, place: place**0.5 + 0.15),
    "mix_receptance": _of_channel(lambda xp, place: place**0.25),
    "decay": _of_channel(lambda xp, place: -5 + 8 * place**1.35),
    "bonus": _of_channel(_bonus),
}
