"""Parameters, bytes and FLOPs: sums over the ops.

The functions of `Sizes` take columns; those of a config return Python ints,
which no model overflows.
"""

import functools
from collections.abc import Iterable
from typing import TypeVar

from arch.config import ArchitectureConfig
from arch.cost.ops import list_ops
from arch.cost.parts import Op, Weight
from arch.cost.sizes import FP16_BYTES, Amount, Count, Sizes, sizes_of
from arch.cost.state import state_of
from arch.cost.workload import Workload, decode, forward, prefill

_Number = TypeVar("_Number", Count, Amount)

MIB = 1024 * 1024

FLOAT32_BYTES = 4  # of a recurrent sum, whatever the model computes in


def total_parameters(sizes: Sizes, *, embeddings: bool = True) -> Count:
    """Weights stored; without the embedding and the head if not `embeddings`."""
    return sum(
        op.count * weight.rows * weight.row_length
        for op in list_ops(sizes, forward())
        if embeddings or op.name not in ("embedding", "positions", "head")
        for weight in op.weights
    )


def total_bytes(sizes: Sizes) -> Count:
    """Bytes of the stored weights, scales and padded blocks included."""
    ops = list_ops(sizes, forward())
    return sum(op.count * weight_bytes(op.weights, sizes) for op in ops)


def total_flops(sizes: Sizes, reading: Workload) -> Count:
    """FLOPs of a forward pass, 2 a multiply-add."""
    return sum(op.count * op.flops for op in list_ops(sizes, reading))


def peak_bytes(sizes: Sizes, reading: Workload, bytes_per_value: int = 2) -> Count:
    """The most activation bytes alive at once in a forward pass."""
    alive = (_alive_bytes(op, bytes_per_value) for op in list_ops(sizes, reading))
    return functools.reduce(larger, alive)


def weight_bytes(weights: Iterable[Weight], sizes: Sizes) -> Count:
    """Bytes of some weights as they are stored."""
    block, block_bytes = sizes.storage
    return sum(
        weight.rows * ((weight.row_length + block - 1) // block) * block_bytes
        if weight.quantised
        else weight.rows * weight.row_length * FP16_BYTES
        for weight in weights
    )


def larger(first: _Number, second: _Number) -> _Number:
    """The larger of two finite values, elementwise for columns, by arithmetic."""
    return first * (first >= second) + second * (second > first)


def _alive_bytes(op: Op, bytes_per_value: int) -> Count:
    alive = (op.held + op.read + op.written) * bytes_per_value
    # An op that a config does not have (no gate, no rotation) holds nothing.
    return (alive + op.sums * FLOAT32_BYTES) * (op.count > 0)


def parameters(config: ArchitectureConfig) -> int:
    """Weights trained: before pruning, a tied embedding once."""
    return int(total_parameters(sizes_of(config, pruned=False)))


def non_embedding_parameters(config: ArchitectureConfig) -> int:
    """`parameters` without the embedding and the head."""
    return int(total_parameters(sizes_of(config, pruned=False), embeddings=False))


def stored_parameters(config: ArchitectureConfig) -> int:
    """Weights exported: after pruning, a tied embedding once."""
    return int(total_parameters(sizes_of(config)))


def size_bytes(config: ArchitectureConfig) -> int:
    """Bytes of the exported weights, quantised and pruned; no file header."""
    return int(total_bytes(sizes_of(config)))


def size_mib(config: ArchitectureConfig) -> float:
    """`size_bytes` in MiB (2**20 bytes)."""
    return size_bytes(config) / MIB


def forward_flops(config: ArchitectureConfig, batch: int = 1, tokens: int = 128) -> int:
    """FLOPs of a forward pass of the exported (pruned) model, from no state.

    A multiply-add is 2. Dense attention counts full T x T score matrices, the
    masked half too. Logits are taken at every token.
    """
    return int(total_flops(sizes_of(config), forward(batch, tokens)))


def training_flops(
    config: ArchitectureConfig, batch: int = 1, tokens: int = 128
) -> int:
    """FLOPs of a training step: 3 forward passes of the model before pruning.

    The backward pass is taken as twice the forward one (Kaplan et al. 2020,
    arXiv:2001.08361). What it computes again to save memory is left out, and so
    is the optimiser.
    """
    sizes = sizes_of(config, pruned=False)
    return 3 * int(total_flops(sizes, forward(batch, tokens)))


def prefill_flops(config: ArchitectureConfig, batch: int = 1, tokens: int = 128) -> int:
    """FLOPs of reading a prompt: as `forward_flops`, logits of the last token."""
    return int(total_flops(sizes_of(config), prefill(batch, tokens)))


def decode_flops(config: ArchitectureConfig, batch: int = 1, past: int = 128) -> int:
    """FLOPs of one more token in each sequence, after `past` tokens."""
    return int(total_flops(sizes_of(config), decode(batch, past)))


def activation_bytes(
    config: ArchitectureConfig,
    batch: int = 1,
    tokens: int = 128,
    bytes_per_value: int = 2,
) -> int:
    """The most activation bytes alive at once in a forward pass.

    The maximum over the ops of what the op reads, what it writes and what waits
    for a later op: the residual stream, queries, keys and values, a gate. Score
    matrices that are written count in full and so do the logits of every token;
    nothing is kept for a backward pass, and nothing is reused in place.
    """
    sizes, reading = sizes_of(config), forward(batch, tokens)
    return int(peak_bytes(sizes, reading, bytes_per_value))


def state_bytes(
    config: ArchitectureConfig,
    batch: int = 1,
    tokens: int = 128,
    bytes_per_value: int = 2,
) -> int:
    """Bytes carried from one generated token to the next, `tokens` read so far.

    Attention's keys and values grow with the tokens; a recurrent family's state
    does not. Sums are float32, all else has `bytes_per_value`.
    """
    values, sums = state_of(sizes_of(config), batch, tokens)
    layer = values * bytes_per_value + sums * FLOAT32_BYTES
    return int(config.num_layers * layer)
