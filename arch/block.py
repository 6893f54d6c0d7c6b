"""One pre-norm residual block (Xiong et al. 2020, arXiv:2002.04745)."""

from typing import TypeVar

import flax.linen as nn
import jax

from arch.config import ArchitectureConfig
from arch.families import has_norm_bias
from arch.layers.channel_mix import ChannelMix, channel_mix_state
from arch.layers.dropout import dropout
from arch.layers.feedforward import FeedForward
from arch.layers.norms import Norm
from arch.layers.sublayer import Sublayer, no_state
from arch.mixers import MIXERS
from arch.traits import Traits, channel_index

_State = TypeVar("_State", dict, None)  # sub-layer name -> its state

# From this many tokens on, a block of flash attention is computed again in the
# backward pass: a third more work, for memory that does not grow with depth.
RECOMPUTED_TOKENS = 1024

# Families with another second sub-layer than the feed-forward one, or with none.
_FEEDFORWARDS: dict[str, Sublayer | None] = {
    "mamba": None,
    "rwkv": Sublayer(ChannelMix, channel_mix_state),
}


def sublayers_of(arch_type: str) -> dict[str, Sublayer]:
    """A family's sub-layers by name, in their order.

    Mamba's block is its mixer alone; RWKV's feed-forward layer is the channel
    mix, which looks one token back.
    """
    kinds = {
        "mixer": MIXERS[arch_type],
        "feedforward": _FEEDFORWARDS.get(arch_type, Sublayer(FeedForward, no_state)),
    }
    return {name: kind for name, kind in kinds.items() if kind is not None}


def is_recomputed(config: ArchitectureConfig, tokens: int) -> bool:
    """True if blocks are computed again in the backward pass.

    Where attention's memory is linear in the sequence, the rest of the blocks
    would hold many times as much.
    """
    return config.arch_type == "flash_attention" and tokens >= RECOMPUTED_TOKENS


class Block(nn.Module):
    """x + sublayer(norm(x)), for each of the family's sub-layers.

    With `parallel_residual` all of them read the block's x (arXiv:2204.06745, 2.1),
    with `shared_norm` by one norm.
    """

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        state: _State,
        traits: Traits,
        dropout_key: jax.Array | None = None,
        lengths: jax.Array | None = None,
        present: jax.Array | None = None,
        layer: jax.Array | None = None,
    ) -> tuple[jax.Array, _State]:
        """[B, T, D], states by name -> [B, T, D], states by name.

        Where `present`, bool[], is False, x comes back as it was; for training.
        `layer`, its place in a stack, says how many a stack has, and nothing else.
        """
        del layer

        def read(block: "Block", x: jax.Array) -> tuple[jax.Array, _State]:
            return block._read(x, state, traits, dropout_key, lengths)

        if state is None and is_recomputed(self.config, x.shape[1]):
            read = nn.remat(read)
        if present is None:
            return read(self, x)
        return nn.cond(present, read, lambda block, x: (x, state), self, x)

    def _read(
        self,
        x: jax.Array,
        state: _State,
        traits: Traits,
        dropout_key: jax.Array | None,
        lengths: jax.Array | None,
    ) -> tuple[jax.Array, _State]:
        channels, _ = channel_index(x.shape[-1], traits.width)
        inside, *outside = (
            (None,) * 3 if dropout_key is None else jax.random.split(dropout_key, 3)
        )
        after = {}
        layers = sublayers_of(self.config.arch_type)
        bias = has_norm_bias(self.config.arch_type) or self.config.biases
        start, normed = x, None
        for (name, layer), key in zip(layers.items(), outside, strict=False):
            if normed is None or not self.config.shared_norm:
                norm = Norm(bias, self.config.norm_epsilon, name=f"{name}_norm")
                normed = norm(start if self.config.parallel_residual else x, traits)
            y, after[name] = layer.module(self.config, self.dtype, name=name)(
                normed,
                None if state is None else state[name],
                traits,
                inside,
                lengths,
            )
            x = x + dropout(key, y, traits.residual_dropout, channels)
            inside = None  # dropout inside a sub-layer is the mixer's
        return x, None if state is None else after
