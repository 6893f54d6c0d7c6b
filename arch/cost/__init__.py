"""What a model costs, from its config alone: weights, bytes, FLOPs, latency."""

from arch.cost.calibrated import Calibrated, Fit, terms_of
from arch.cost.hardware import DEVICE_KINDS, HARDWARE, Hardware, hardware_for
from arch.cost.latency import (
    OpLatency,
    decode_ms,
    latency_breakdown,
    latency_ms,
    prefill_ms,
    total_seconds,
)
from arch.cost.ops import list_ops
from arch.cost.parts import KINDS, Op, Weight
from arch.cost.pruning import CHANNEL_MULTIPLE, kept_channels
from arch.cost.sizes import FP16_BYTES, STORAGE, Sizes, Storage, sizes_of
from arch.cost.state import State, state_of
from arch.cost.totals import (
    MIB,
    activation_bytes,
    decode_flops,
    forward_flops,
    non_embedding_parameters,
    parameters,
    peak_bytes,
    prefill_flops,
    size_bytes,
    size_mib,
    state_bytes,
    stored_parameters,
    total_bytes,
    total_flops,
    total_parameters,
    training_flops,
)
from arch.cost.workload import Workload, decode, forward, prefill

__all__ = [
    "CHANNEL_MULTIPLE",
    "DEVICE_KINDS",
    "FP16_BYTES",
    "HARDWARE",
    "KINDS",
    "MIB",
    "STORAGE",
    "Calibrated",
    "Fit",
    "Hardware",
    "Op",
    "OpLatency",
    "Sizes",
    "State",
    "Storage",
    "Weight",
    "Workload",
    "activation_bytes",
    "decode",
    "decode_flops",
    "decode_ms",
    "forward",
    "forward_flops",
    "hardware_for",
    "kept_channels",
    "latency_breakdown",
    "latency_ms",
    "list_ops",
    "non_embedding_parameters",
    "parameters",
    "peak_bytes",
    "prefill",
    "prefill_flops",
    "prefill_ms",
    "size_bytes",
    "size_mib",
    "sizes_of",
    "state_bytes",
    "state_of",
    "stored_parameters",
    "terms_of",
    "total_bytes",
    "total_flops",
    "total_parameters",
    "total_seconds",
    "training_flops",
]
