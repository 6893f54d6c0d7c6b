"""Predicted latency: a roofline over the ops, and a launch for each of them.

For hardware that was calibrated, the sum of terms in `arch.cost.calibrated`.

Roofline: Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785.
An op takes the longer of its arithmetic at the device's peak and its bytes at
the device's bandwidth. Launches are added because they rule small models:
FLOPs alone do not rank the measured latency of models that differ in depth.
"""

import dataclasses
import functools
import operator

from arch.config import ArchitectureConfig
from arch.cost.calibrated import calibrated_seconds
from arch.cost.hardware import Hardware
from arch.cost.ops import list_ops
from arch.cost.parts import Op
from arch.cost.sizes import Amount, Count, Sizes, sizes_of
from arch.cost.totals import FLOAT32_BYTES, larger, weight_bytes
from arch.cost.workload import Workload, decode, forward, prefill


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpLatency:
    """One line of a breakdown; all figures are of all the op's runs together."""

    name: str
    kind: str
    count: int
    flops: int
    moved_bytes: int  # weights as stored, activations as the device computes them
    milliseconds: float  # the roofline's, without launches
    launch_milliseconds: float
    compute_bound: bool


def total_seconds(sizes: Sizes, hardware: Hardware, reading: Workload) -> Amount:
    """Seconds of a forward pass; float64 columns for columns."""
    if hardware.calibrated is not None:
        return calibrated_seconds(sizes, hardware.calibrated, reading)
    each = (
        op.count * (_roofline(op, sizes, hardware) + hardware.launch_seconds)
        for op in list_ops(sizes, reading)
    )
    # `sum` corrects rounding errors from Python 3.12 on, of numbers but not of
    # columns: a config's seconds are to be those of its space's columns.
    return functools.reduce(operator.add, each)


def latency_ms(
    config: ArchitectureConfig, hardware: Hardware, batch: int = 1, tokens: int = 128
) -> float:
    """Milliseconds of a forward pass of the exported model, predicted.

    Weights are read at their stored width, after pruning and quantisation; the
    table of embeddings only where it is looked up. Every op is launched once for
    each time it runs: a compiler that fuses ops launches fewer, which is for the
    calibration of `launch_seconds` to absorb.
    """
    return _milliseconds(config, hardware, forward(batch, tokens))


def prefill_ms(
    config: ArchitectureConfig, hardware: Hardware, batch: int = 1, tokens: int = 128
) -> float:
    """Milliseconds until a prompt is read and the next token's logits are there."""
    return _milliseconds(config, hardware, prefill(batch, tokens))


def decode_ms(
    config: ArchitectureConfig, hardware: Hardware, batch: int = 1, past: int = 128
) -> float:
    """Milliseconds of one more token in each sequence, after `past` tokens.

    Attention reads the keys and values of all of them, other families a state of
    fixed size.
    """
    return _milliseconds(config, hardware, decode(batch, past))


def latency_breakdown(
    config: ArchitectureConfig, hardware: Hardware, reading: Workload
) -> tuple[OpLatency, ...]:
    """The roofline op by op: it is the sum of both kinds of milliseconds.

    Whether the hardware was calibrated makes no difference to it.
    """
    sizes = sizes_of(config)
    return tuple(
        OpLatency(
            name=op.name,
            kind=op.kind,
            count=int(op.count),
            flops=int(op.count * op.flops),
            moved_bytes=int(op.count * _moved_bytes(op, sizes, hardware)),
            milliseconds=1e3 * float(op.count * _roofline(op, sizes, hardware)),
            launch_milliseconds=1e3 * float(op.count * hardware.launch_seconds),
            compute_bound=bool(
                op.flops / hardware.peak_flops
                > _moved_bytes(op, sizes, hardware) / hardware.bandwidth
            ),
        )
        for op in list_ops(sizes, reading)
        if op.count
    )


def _milliseconds(
    config: ArchitectureConfig, hardware: Hardware, reading: Workload
) -> float:
    return 1e3 * float(total_seconds(sizes_of(config), hardware, reading))


def _roofline(op: Op, sizes: Sizes, hardware: Hardware) -> Amount:
    return larger(
        op.flops / hardware.peak_flops,
        _moved_bytes(op, sizes, hardware) / hardware.bandwidth,
    )


def _moved_bytes(op: Op, sizes: Sizes, hardware: Hardware) -> Count:
    weights = op.weights if op.streamed is None else op.streamed
    activations = (op.read + op.written) * hardware.value_bytes
    return weight_bytes(weights, sizes) + activations + op.sums * FLOAT32_BYTES
