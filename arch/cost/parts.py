"""What an op is, and the ops that all families share."""

import dataclasses
from typing import NamedTuple

from arch.cost.sizes import Count, Sizes
from arch.cost.workload import Workload
from arch.families import USES, has_embedding_norm, has_norm_bias

KINDS = ("matmul", "attention", "scan", "elementwise", "gather")

# Operations per value, with exp, tanh, a root or a division as one each. They
# are a percent or so of a forward pass; that they are there at all matters more
# than their last digit.
NORM_FLOPS = 5  # square, sum, multiply by the root, by the scale; or a mean
ACTIVATION_FLOPS = 6  # gelu, silu


class Weight(NamedTuple):
    """A stored tensor: `rows` rows along which blocks are quantised.

    A kernel's row runs along its input (contracted) dimension; an embedding's
    and a head's along D.
    """

    rows: Count
    row_length: Count
    quantised: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One op of a forward pass; all figures are of one of its `count` runs."""

    name: str
    kind: str  # one of KINDS
    count: Count  # runs in a forward pass, each with its own weights
    weights: tuple[Weight, ...] = ()  # what it adds to the file
    streamed: tuple[Weight, ...] | None = None  # what it reads; None: `weights`
    flops: Count = 0  # 2 a multiply-add
    read: Count = 0  # activation values it reads
    written: Count = 0  # activation values it writes
    sums: Count = 0  # float32 values of a state that it reads and writes
    held: Count = 0  # activation values alive meanwhile for later ops
    steps: int = 1  # of a run, one after the other: what waits for its state


def vector(channels: Count) -> Weight:
    """A non-matrix tensor, of one value a channel."""
    return Weight(1, channels, quantised=False)


def matmul(
    name: str,
    count: Count,
    inputs: Count,
    outputs: Count,
    positions: Count,
    held: Count = 0,
    bias: Count = 0,
) -> Op:
    """A projection of every position; `bias` is 1 if it adds one, else 0."""
    weights = Weight(outputs, inputs), *_bias(outputs, bias)
    return Op(
        name=name,
        kind="matmul",
        count=count,
        weights=weights,
        flops=2 * positions * inputs * outputs + bias * positions * outputs,
        read=positions * inputs,
        written=positions * outputs,
        held=held,
    )


def _bias(channels: Count, count: Count) -> tuple[Weight, ...]:
    none = isinstance(count, int) and count == 0
    return () if none else (Weight(count, channels, quantised=False),)


def embeddings(sizes: Sizes, reading: Workload) -> list[Op]:
    """What comes before the first block."""
    values = reading.positions * sizes.hidden
    ops = [
        Op(
            name="embedding",
            kind="gather",
            count=1,
            # Tied, the table is the head's: nothing of its own is stored.
            weights=(Weight(sizes.vocab * (1 - sizes.tied), sizes.hidden),),
            streamed=(Weight(reading.positions, sizes.hidden),),
            written=values,
        )
    ]
    if "position_encoding" in USES[sizes.arch_type]:
        absolute = 1 - sizes.rotary - sizes.alibi
        added = _elementwise("positions", absolute, values, read=1)
        if not (isinstance(sizes.positions, int) and sizes.positions == 0):
            table = Weight(sizes.positions, sizes.hidden)
            rows = Weight(reading.positions * (sizes.positions > 0), sizes.hidden)
            added = dataclasses.replace(added, weights=(table,), streamed=(rows,))
        ops.append(added)
    return ops


def residual_stream(sizes: Sizes, reading: Workload, branches: Count) -> list[Op]:
    """The norms of all branches and of both ends, and each branch's addition."""
    values = reading.positions * sizes.hidden
    ends = 2 if has_embedding_norm(sizes.arch_type) else 1
    bias = int(has_norm_bias(sizes.arch_type)) + sizes.biases
    norm = Op(
        name="norm",
        kind="elementwise",
        count=branches + ends - sizes.layers * sizes.shared_norm,
        weights=(vector(sizes.hidden), *_bias(sizes.hidden, bias)),
        flops=(NORM_FLOPS + bias) * values,
        read=values,
        written=values,
    )
    return [norm, _elementwise("residual", branches, values, read=2)]


def head(sizes: Sizes, reading: Workload) -> Op:
    """The logits."""
    asked = reading.batch * reading.logits
    return matmul("head", 1, sizes.hidden, sizes.vocab, asked, bias=sizes.head_bias)


def feedforward(sizes: Sizes, reading: Workload) -> list[Op]:
    """Up, activate, down; with a gate where there is one."""
    layers, hidden, inner = sizes.layers, sizes.hidden, sizes.inner
    positions = reading.positions
    stream, wide, bias = positions * hidden, positions * inner, sizes.biases
    return [
        matmul("up", layers, hidden, inner, positions, stream, bias),
        matmul(
            "gate", layers * sizes.gated, hidden, inner, positions, stream + wide, bias
        ),
        Op(
            name="activation",
            kind="elementwise",
            count=layers,
            flops=(ACTIVATION_FLOPS + sizes.gated) * wide,
            read=(1 + sizes.gated) * wide,
            written=wide,
            held=stream,
        ),
        matmul("down", layers, inner, hidden, positions, stream, bias),
    ]


def _elementwise(name: str, count: Count, values: Count, read: int) -> Op:
    # One addition a value.
    return Op(
        name=name,
        kind="elementwise",
        count=count,
        flops=values,
        read=read * values,
        written=values,
    )
