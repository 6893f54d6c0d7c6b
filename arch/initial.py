"""Initial weights: one rule, for the Flax modules and for drawing on the host.

Matrices are normal with variance 1/fan_in; those that write to the residual
stream are divided by sqrt(2 x layers) (Radford et al. 2019, GPT-2), so that
the stream's variance does not grow with depth. The head starts small, at 0.02,
so that the first loss is close to log(V). Embeddings have deviation 1, for a
token must stand out in a stream to which every layer adds about as much
(measured in experiments/initial). A tied matrix is a head too, and starts as one.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from arch.config import ArchitectureConfig
from arch.layout import fan_in, layout_of

HEAD_DEVIATION = 0.02
_WRITING = ("out", "down")  # modules whose output joins the residual stream


def embedding_deviation(config: ArchitectureConfig) -> float:
    """Standard deviation of the token embeddings."""
    return HEAD_DEVIATION if config.tie_embeddings else 1.0


def deviation(config: ArchitectureConfig, module: str, inputs: int) -> float:
    """Standard deviation of a module's matrix with `inputs` summed inputs."""
    if module == "embed":
        return embedding_deviation(config)
    if module == "head":
        return HEAD_DEVIATION
    layers = 2 * config.num_layers if module in _WRITING else 1
    return 1 / math.sqrt(inputs * layers)


def initializer(config: ArchitectureConfig, module: str) -> nn.initializers.Initializer:
    """The rule as a Flax initializer of one unstacked matrix."""

    def init(key, shape, dtype=jnp.float32):
        # Flax hands over [inputs, outputs], whatever axes the kernel has.
        scale = deviation(config, module, inputs=shape[0])
        return scale * jax.random.normal(key, shape, dtype)

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
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), int))
    seed = np.asarray(jax.random.key_data(key)).tolist()

    def draw(path, leaf):
        layout = layout_of(path)
        if not layout.matrix:
            return np.ones(leaf.shape, np.float32)
        stream = [*seed, *"/".join(entry.key for entry in path).encode()]
        rng = np.random.default_rng(stream)
        values = rng.standard_normal(leaf.shape, np.float32)
        inputs = fan_in(layout, leaf.shape)
        return values * np.float32(deviation(model.config, layout.module, inputs))

    return jax.tree_util.tree_map_with_path(draw, shapes["params"])
