"""RWKV-4's channel mix, its feed-forward layer (Peng et al. 2023, arXiv:2305.13048)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.initial import vector_initializer
from arch.layers.dense import dense
from arch.layers.sublayer import look_back
from arch.traits import Traits, along_channels


class ChannelMixState(NamedTuple):
    """What the channel mix remembers."""

    shifted: jax.Array  # [B, 1, D], the last input


def channel_mix_state(
    config: ArchitectureConfig,
    batch: int,
    capacity: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> ChannelMixState:
    """Nothing read."""
    return ChannelMixState(jnp.zeros((batch, 1, config.hidden_dim), dtype))


class ChannelMix(nn.Module):
    """Squared ReLU (So et al. 2021, arXiv:2109.08668) of this token and the last."""

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        state: ChannelMixState | None,
        traits: Traits,
        dropout_key: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, ChannelMixState | None]:
        """[B, T, D], state -> [B, T, D], state."""
        channels = x.shape[-1]
        before = None if state is None else state.shifted
        joined, last = look_back(x, before, 1, lengths)
        before = joined[:, :-1]

        def mixed(name: str) -> jax.Array:
            share = self.param(name, vector_initializer(name), (channels,))
            share = along_channels(share, x)
            return x * share + before * (1 - share)

        def project(name: str, features: int, x: jax.Array) -> jax.Array:
            return dense(self.config, self.dtype, name, features)(x)

        up = project("up", self.config.feedforward_dim, mixed("mix_key"))
        down = project("down", channels, jnp.square(jax.nn.relu(up)))
        receptance = project("receptance", channels, mixed("mix_receptance"))
        y = jax.nn.sigmoid(receptance) * down
        return y, None if state is None else ChannelMixState(last)
