"""Sequence mixers, one a family: `arch.layers.sublayer` says how they are called."""

from arch.layers.sublayer import Sublayer
from arch.mixers.attention import Attention, attention_state
from arch.mixers.linear_attention import LinearAttention, linear_state
from arch.mixers.mamba import Mamba, mamba_state
from arch.mixers.rwkv import TimeMix, time_mix_state

MIXERS = {
    "transformer": Sublayer(Attention, attention_state),
    "linear_transformer": Sublayer(LinearAttention, linear_state),
    "flash_attention": Sublayer(Attention, attention_state),
    "grouped_query_attention": Sublayer(Attention, attention_state),
    "mamba": Sublayer(Mamba, mamba_state),
    "rwkv": Sublayer(TimeMix, time_mix_state),
}
