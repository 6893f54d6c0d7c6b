"""One pre-norm residual block (Xiong et al. 2020, arXiv:2002.04745)."""

import flax.linen as nn
import jax

from arch.config import ArchitectureConfig
from arch.dropout import dropout
from arch.feedforward import FeedForward
from arch.mixers import mixer_of
from arch.norms import Norm
from arch.traits import Traits, channel_index


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feedforward(norm(x))."""

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, state, traits: Traits, dropout_key=None):
        """[B, T, D], state -> [B, T, D], state; arguments as for a mixer."""
        channels, _ = channel_index(x.shape[-1], traits.width)
        keys = (None,) * 3 if dropout_key is None else jax.random.split(dropout_key, 3)

        def residual(key, y):
            return dropout(key, y, traits.residual_dropout, channels)

        mixer = mixer_of(self.config.arch_type).module
        mixed, state = mixer(self.config, self.dtype, name="mixer")(
            Norm(name="mixer_norm")(x, traits), state, traits, keys[0]
        )
        x = x + residual(keys[1], mixed)
        fed = FeedForward(self.config, self.dtype, name="feedforward")(
            Norm(name="feedforward_norm")(x, traits), traits
        )
        return x + residual(keys[2], fed), state
