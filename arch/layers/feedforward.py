"""The feed-forward layer: up, activate, down, with a gate where there is one."""

import flax.linen as nn
import jax

from arch.config import ArchitectureConfig
from arch.layers.activations import activate
from arch.layers.dense import dense
from arch.traits import Traits


class FeedForward(nn.Module):
    """Position-wise feed-forward layer."""

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        state: None,
        traits: Traits,
        dropout_key: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, None]:
        """[B, T, D] -> [B, T, D], and no state."""
        config = self.config

        inner, given = config.feedforward_dim, (config, self.dtype)
        bias = config.biases
        up = dense(*given, "up", inner, bias=bias)(x)
        gate = dense(*given, "gate", inner, bias=bias)(x) if config.gated else None
        down = dense(*given, "down", config.hidden_dim, bias=bias)
        return down(activate(gate, up, traits, config.tanh_gelu)), None
