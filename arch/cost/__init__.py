"""What a model costs, from its config alone: weights, bytes, FLOPs, latency."""

from arch.cost.hardware import DEVICE_KINDS, HARDWARE, Hardware, hardware_for
from arch.cost.latency import (
    OpLatency,
    latency_breakdown,
    latency_ms,
    total_seconds,
)
from arch.cost.ops import KINDS, Op, Weight, list_ops
from arch.cost.pruning import CHANNEL_MULTIPLE, kept_channels
from arch.cost.sizes import FP16_BYTES, STORAGE, Sizes, Storage, sizes_of
from arch.cost.totals import (
    MIB,
    activation_bytes,
    forward_flops,
    kv_cache_bytes,
    non_embedding_parameters,
    parameters,
    peak_values,
    size_bytes,
    size_mib,
    stored_parameters,
    total_bytes,
    total_flops,
    total_parameters,
    training_flops,
)

__all__ = [
    "CHANNEL_MULTIPLE",
    "DEVICE_KINDS",
    "FP16_BYTES",
    "HARDWARE",
    "KINDS",
    "MIB",
    "STORAGE",
    "Hardware",
    "Op",
    "OpLatency",
    "Sizes",
    "Storage",
    "Weight",
    "activation_bytes",
    "forward_flops",
    "hardware_for",
    "kept_channels",
    "kv_cache_bytes",
    "latency_breakdown",
    "latency_ms",
    "list_ops",
    "non_embedding_parameters",
    "parameters",
    "peak_values",
    "size_bytes",
    "size_mib",
    "sizes_of",
    "stored_parameters",
    "total_bytes",
    "total_flops",
    "total_parameters",
    "total_seconds",
    "training_flops",
]
