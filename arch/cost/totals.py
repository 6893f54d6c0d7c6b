"""Parameters, bytes and FLOPs: sums over the ops.

The functions of `Sizes` take columns; those of a config return Python ints,
which no model overflows.
"""

import functools
from collections.abc import Iterable
from typing import TypeVar

from arch.config import MAMBA_STATE, MAMBA_TAPS, ArchitectureConfig
from arch.cost.ops import Op, Weight, list_ops
from arch.cost.sizes import (
    FP16_BYTES,
    Amount,
    Count,
    Sizes,
    sizes_of,
)

_Number = TypeVar("_Number", Count, Amount)

MIB = 1024 * 1024

FLOAT32_BYTES = 4


def total_parameters(sizes: Sizes, *, embeddings: bool = True) -> Count:
    """Weights stored; without the embedding and the head if not `embeddings`."""
    return sum(
        op.count * weight.rows * weight.row_length
        for op in list_ops(sizes)
        if embeddings or op.name not in ("embedding", "head")
        for weight in op.weights
    )


def total_bytes(sizes: Sizes) -> Count:
    """Bytes of the stored weights, scales and padded blocks included."""
    return sum(op.count * weight_bytes(op.weights, sizes) for op in list_ops(sizes))


def total_flops(sizes: Sizes, batch: int = 1, tokens: int = 128) -> Count:
    """FLOPs of a forward pass, 2 a multiply-add."""
    return sum(op.count * op.flops for op in list_ops(sizes, batch, tokens))


def peak_values(sizes: Sizes, batch: int = 1, tokens: int = 128) -> Count:
    """The most activation values alive at once in a forward pass."""
    alive = map(_alive, list_ops(sizes, batch, tokens))
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


def _alive(op: Op) -> Count:
    # An op that a config does not have (no gate, no rotation) holds nothing.
    return (op.held + op.read + op.written) * (op.count > 0)


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
    """FLOPs of a forward pass of the exported (pruned) model.

    A multiply-add is 2. Attention counts full T x T score matrices, as a dense
    implementation computes them, and logits are taken at every token.
    """
    return int(total_flops(sizes_of(config), batch, tokens))


def training_flops(
    config: ArchitectureConfig, batch: int = 1, tokens: int = 128
) -> int:
    """FLOPs of a training step: 3 forward passes of the model before pruning.

    The backward pass is taken as twice the forward one (Kaplan et al. 2020,
    arXiv:2001.08361); the optimiser is left out.
    """
    return 3 * int(total_flops(sizes_of(config, pruned=False), batch, tokens))


def activation_bytes(
    config: ArchitectureConfig,
    batch: int = 1,
    tokens: int = 128,
    bytes_per_value: int = 2,
) -> int:
    """The most activation bytes alive at once in a forward pass.

    The maximum over the ops of what the op reads, what it writes and what waits
    for a later op: the residual stream, queries, keys and values, a gate. Score
    matrices count in full and so do the logits of every token; nothing is kept
    for a backward pass, and nothing is reused in place.
    """
    return bytes_per_value * int(peak_values(sizes_of(config), batch, tokens))


def kv_cache_bytes(
    config: ArchitectureConfig,
    batch: int = 1,
    tokens: int = 128,
    bytes_per_value: int = 2,
) -> int:
    """Bytes carried from one generated token to the next, `tokens` read so far.

    A transformer's keys and values grow with the tokens. Mamba's state does not:
    K inputs of the convolution at `bytes_per_value`, and N states in float32, for
    every inner channel.
    """
    sizes = sizes_of(config)
    list_ops(sizes)  # raises for a family without costs
    if config.arch_type == "mamba":
        channel = MAMBA_TAPS * bytes_per_value + MAMBA_STATE * FLOAT32_BYTES
        return int(sizes.layers * batch * sizes.inner * channel)
    return int(2 * sizes.layers * batch * tokens * sizes.hidden * bytes_per_value)
