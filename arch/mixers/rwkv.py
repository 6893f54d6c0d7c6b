"""RWKV-4's time mix (Peng et al. 2023, arXiv:2305.13048)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.initial import vector_initializer
from arch.layers.dense import dense
from arch.layers.sublayer import look_back
from arch.mixers.wkv import Sums, no_sums, wkv
from arch.traits import Traits, along_channels


class TimeMixState(NamedTuple):
    """What the time mix remembers."""

    shifted: jax.Array  # [B, 1, D], the last input
    numerator: jax.Array  # f32[B, D], as in `Sums`
    denominator: jax.Array  # f32[B, D]
    maximum: jax.Array  # f32[B, D]


def time_mix_state(
    config: ArchitectureConfig,
    batch: int,
    capacity: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> TimeMixState:
    """Nothing read; a recurrent state has no capacity."""
    shifted = jnp.zeros((batch, 1, config.hidden_dim), dtype)
    return TimeMixState(shifted, *no_sums(batch, config.hidden_dim))


class TimeMix(nn.Module):
    """Each channel's decaying average of values, gated by the receptance."""

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        state: TimeMixState | None,
        traits: Traits,
        dropout_key: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, TimeMixState | None]:
        """[B, T, D], state -> [B, T, D], state."""
        channels = x.shape[-1]
        before, sums = None, None
        if state is not None:
            before, *rest = state
            sums = Sums(*rest)
        joined, last = look_back(x, before, 1, lengths)
        before = joined[:, :-1]

        def vector(name: str) -> jax.Array:
            return self.param(name, vector_initializer(name), (channels,))

        def project(name: str, x: jax.Array) -> jax.Array:
            return dense(self.config, self.dtype, name, channels)(x)

        def of_mixed(name: str) -> jax.Array:
            share = along_channels(vector(f"mix_{name}"), x)
            return project(name, x * share + before * (1 - share))

        receptance = jax.nn.sigmoid(of_mixed("receptance"))
        averages, sums = wkv(
            -jnp.exp(vector("decay")),
            vector("bonus"),
            of_mixed("key"),
            of_mixed("value"),
            sums,
            lengths,
        )
        y = project("output", receptance * averages.astype(receptance.dtype))
        return y, None if sums is None else TimeMixState(last, *sums)
