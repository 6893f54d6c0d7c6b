"""Latency over several devices that share every matrix: work, launches, reductions.

Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053, section 3): each device has a share
of the heads and of the feed-forward channels, and after each sub-layer all devices add
up the residual stream, two all-reduces a layer. A ring moves 2 (n - 1) / n of what is
reduced over each link.
"""

from arch.cost import Hardware, Workload, list_ops, total_seconds
from arch.cost.sizes import Amount, Sizes
from arch.families import USES

# Bytes a second from one device to another, in one direction: half of what the sheets
# of NVLink print for both.
LINKS = {
    "a100": 300e9,
    "a100-40gb": 300e9,
    "h100": 450e9,
    "h200": 450e9,
    "b200": 900e9,
}
PCIE = 32e9  # PCI Express 4.0, 16 lanes, in one direction
REDUCE_SECONDS = 1e-5  # before the first byte of an all-reduce has moved: assumed


def link_of(hardware: Hardware) -> float:
    """Bytes a second between two such devices, where nothing else is said."""
    return LINKS.get(hardware.name, PCIE)


def shared_seconds(
    sizes: Sizes, hardware: Hardware, reading: Workload, devices: int, link: float
) -> Amount:
    """Seconds of a forward pass; float64 columns for columns.

    Work is shared evenly; launches are not, for every device launches every op. Of a
    calibrated device launches are not known apart: all is shared.

    Args:
      sizes: of the whole model.
      hardware: of each device.
      reading: what is read.
      devices: at least 1; one alone reduces nothing.
      link: bytes a second between two of them.
    """
    seconds = total_seconds(sizes, hardware, reading)
    if devices == 1:
        return seconds
    launches: Amount = 0.0
    if hardware.calibrated is None:
        for op in list_ops(sizes, reading):
            launches = launches + op.count * hardware.launch_seconds
    reduced = reduction_seconds(sizes, hardware, reading, devices, link)
    return (seconds - launches) / devices + launches + reduced


def reduction_seconds(
    sizes: Sizes, hardware: Hardware, reading: Workload, devices: int, link: float
) -> Amount:
    """Seconds of all all-reduces of a forward pass; arguments as `shared_seconds`."""
    if devices == 1:
        return 0.0 * sizes.layers
    sublayers = 2 if "ffn_multiplier" in USES[sizes.arch_type] else 1
    stream = reading.positions * sizes.hidden * hardware.value_bytes
    moved = 2 * (devices - 1) / devices * stream
    return sublayers * sizes.layers * (moved / link + REDUCE_SECONDS)
