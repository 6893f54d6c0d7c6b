"""A model's forward pass as a list of ops, in the order they run.

Everything is arithmetic on `Sizes`, so one config's ints and a space's columns
go through the same lines.
"""

from arch.cost.attention import attention, flash_attention
from arch.cost.linear_attention import linear_attention
from arch.cost.parts import Op, embeddings, feedforward, head, residual_stream
from arch.cost.recurrent import channel_mix, mamba, time_mix
from arch.cost.sizes import Sizes
from arch.cost.workload import Workload

# Each family's sub-layers; a block adds each to the residual stream.
_SUBLAYERS = {
    "transformer": (attention, feedforward),
    "linear_transformer": (linear_attention, feedforward),
    "flash_attention": (flash_attention, feedforward),
    "grouped_query_attention": (attention, feedforward),
    "mamba": (mamba,),
    "rwkv": (time_mix, channel_mix),
}


def list_ops(sizes: Sizes, reading: Workload) -> tuple[Op, ...]:
    """The ops of one forward pass: all their weights are the model's."""
    sublayers = _SUBLAYERS[sizes.arch_type]
    return (
        *embeddings(sizes, reading),
        *residual_stream(sizes, reading, branches=len(sublayers) * sizes.layers),
        *(op for sublayer in sublayers for op in sublayer(sizes, reading)),
        head(sizes, reading),
    )
