"""Where a shape's parameters, memory and milliseconds go, part by part."""

from typing import NamedTuple

from arch import ArchitectureConfig
from arch.cost import Workload, decode, latency_breakdown, prefill, state_of
from arch.cost.ops import list_ops
from arch.cost.sizes import sizes_of
from arch.cost.totals import FLOAT32_BYTES, MIB, weight_bytes
from arch.cost.workload import forward
from jaxnas.analytic.objectives import Use
from jaxnas.analytic.tensor_parallel import reduction_seconds

# The name of an op -> its part; any other is of the mixer.
_PARTS = {
    "embedding": "embedding",
    "positions": "embedding",
    "head": "output head",
    "norm": "norms, residuals",
    "residual": "norms, residuals",
    "up": "feed-forward",
    "gate": "feed-forward",
    "activation": "feed-forward",
    "down": "feed-forward",
    "squared_relu": "feed-forward",
    "receptance": "feed-forward",
    "channel_shift": "feed-forward",
    "channel_gate": "feed-forward",
}
MIXER, CONTEXT, DEVICES = "mixer", "context", "between devices"
_ORDER = (
    "embedding",
    MIXER,
    CONTEXT,
    "feed-forward",
    "norms, residuals",
    "output head",
    DEVICES,
)


class Portion(NamedTuple):
    """One part of a model; figures of the whole model, on one of its devices."""

    name: str
    parameters: int  # as they are exported, after pruning
    mib: float  # of weights, or of what is remembered
    prefill_ms: float
    decode_ms: float


def breakdown(config: ArchitectureConfig, use: Use) -> list[Portion]:
    """The parts in the order they run; their sums are the model's figures.

    The mixer's part is its projections; the context's is what reads the tokens that
    are remembered, and the memory that they take.

    Milliseconds are the roofline's, launches included; how a device was calibrated
    makes no difference to them.
    """
    sizes = sizes_of(config)
    counts = dict.fromkeys(_ORDER, 0)
    stored = dict.fromkeys(_ORDER, 0)
    for op in list_ops(sizes, forward()):
        part = _part_of(op.name, op.kind)
        own = sum(weight.rows * weight.row_length for weight in op.weights)
        counts[part] += int(op.count * own)
        stored[part] += int(op.count * weight_bytes(op.weights, sizes))
    values, sums = state_of(sizes, use.batch, use.context)
    layer = values * use.hardware.value_bytes + sums * FLOAT32_BYTES
    stored[CONTEXT] += int(config.num_layers * layer)
    prefills = _milliseconds(config, use, prefill(use.batch, use.prompt))
    decodes = _milliseconds(config, use, decode(use.batch, use.context))
    return [
        Portion(
            name,
            counts[name],
            stored[name] / MIB / use.devices,
            prefills.get(name, 0.0),
            decodes.get(name, 0.0),
        )
        for name in _ORDER
        if use.devices > 1 or name != DEVICES
    ]


def _part_of(name: str, kind: str) -> str:
    if kind in ("attention", "scan") or name == "softmax":
        return CONTEXT
    return _PARTS.get(name, MIXER)


def _milliseconds(
    config: ArchitectureConfig, use: Use, reading: Workload
) -> dict[str, float]:
    found: dict[str, float] = {}
    for op in latency_breakdown(config, use.hardware, reading):
        part = _part_of(op.name, op.kind)
        own = op.milliseconds / use.devices + op.launch_milliseconds
        found[part] = found.get(part, 0.0) + own
    sizes, link = sizes_of(config), use.link_bandwidth
    seconds = reduction_seconds(sizes, use.hardware, reading, use.devices, link)
    found[DEVICES] = 1e3 * float(seconds)
    return found
