"""The feed-forward layer: up, activate, down, with a gate where there is one."""

import flax.linen as nn
import jax

from arch.config import ArchitectureConfig
from arch.initial import initializer
from arch.layers.activations import activate
from arch.traits import Traits


class FeedForward(nn.Module):
    """Position-wise feed-forward layer, bias-free."""

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

        def project(name: str, features: int) -> nn.Dense:
            return nn.Dense(
                features,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=initializer(config, name),
                name=name,
            )

        up = project("up", config.feedforward_dim)(x)
        gate = project("gate", config.feedforward_dim)(x) if config.gated else None
        return project("down", config.hidden_dim)(activate(gate, up, traits)), None
