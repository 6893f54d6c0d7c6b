"""What a roofline needs to know of a device, with the source of each figure."""

import dataclasses
import math
import re

from arch.cost.calibrated import Calibrated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """A device's ceilings, and how fast it was found to be.

    Raises:
      ValueError: a figure that is not above zero.
    """

    name: str
    peak_flops: float  # FLOP/s, dense, at the precision models compute in
    bandwidth: float  # bytes/s of main memory; inf for none
    launch_seconds: float  # added for every op, at least 0
    memory_bytes: int
    value_bytes: int  # of an activation
    peak_source: str
    bandwidth_source: str
    launch_source: str
    memory_source: str
    calibrated: Calibrated | None = None  # in place of the roofline, if there

    def __post_init__(self) -> None:
        for field in ("peak_flops", "bandwidth", "memory_bytes", "value_bytes"):
            if not getattr(self, field) > 0:
                got = getattr(self, field)
                raise ValueError(f"{field}={got!r} is not allowed: needs above 0")
        if not (math.isfinite(self.launch_seconds) and self.launch_seconds >= 0):
            raise ValueError(
                f"launch_seconds={self.launch_seconds!r} is not allowed: "
                "needs a finite number, at least 0"
            )


_ADA = "NVIDIA Ada GPU Architecture whitepaper v2.01"
_GB202 = "NVIDIA RTX Blackwell GPU Architecture whitepaper"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet, 80 GB SXM"
_H100 = "NVIDIA H100 Tensor Core GPU datasheet, SXM"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet, SXM"

# The low end of the source's range: XLA puts kernels into CUDA graphs, where a
# launch costs less.
_GPU_LAUNCH_SECONDS = 4e-6
_GPU_LAUNCH = (
    "assumed until calibrated: a launch through the driver takes 4 to 6 us, "
    "susun-blog.com/blog/pegainfer-3-cuda-graph"
)


def _gpu(
    name: str,
    peak_flops: float,
    units: str,
    bandwidth: float,
    memory_bytes: int,
    source: str,
) -> Hardware:
    return Hardware(
        name=name,
        peak_flops=peak_flops,
        bandwidth=bandwidth,
        launch_seconds=_GPU_LAUNCH_SECONDS,
        memory_bytes=memory_bytes,
        value_bytes=2,
        peak_source=f"{source}; bf16 with fp32 sums, dense: {units}",
        bandwidth_source=source,
        launch_source=_GPU_LAUNCH,
        memory_source=source,
    )


# The units of a peak are tensor cores x FLOPs a cycle x boost clock. The Hopper
# sheets print 1,979 TFLOP/s, which is for 2:4 sparse matrices: half is dense.
_PROFILES = (
    Hardware(
        name="cpu-core",
        peak_flops=3.0e9 * 2 * 8 * 2,
        bandwidth=20e9,
        launch_seconds=2e-6,
        memory_bytes=16 * 10**9,
        value_bytes=4,
        peak_source=(
            "3 GHz x 2 FMA ports x 8 float32 lanes of AVX2 x 2: 32 FLOPs a cycle on "
            "Haswell and later, Agner Fog's instruction tables"
        ),
        bandwidth_source=(
            "one core alone moves 11 to 25 GB/s, bounded by its outstanding misses "
            "rather than by DRAM: copies at stackoverflow.com/questions/39260020, "
            "reads at notes.elimelt.com/operating-systems/benchmarks/bandwidth.html"
        ),
        launch_source="assumed until calibrated",
        memory_source="assumed: a laptop's",
    ),
    _gpu("rtx-4090", 165.2e12, "512 x 128 x 2.52 GHz", 1008e9, 24 * 10**9, _ADA),
    _gpu("rtx-5090", 209.5e12, "680 x 128 x 2.407 GHz", 1792e9, 32 * 10**9, _GB202),
    _gpu("a100", 312e12, "432 x 512 x 1.41 GHz", 2039e9, 80 * 10**9, _A100),
    _gpu("h100", 989.4e12, "528 x 1024 x 1.83 GHz", 3.35e12, 80 * 10**9, _H100),
    _gpu("h200", 989.4e12, "528 x 1024 x 1.83 GHz", 4.8e12, 141 * 10**9, _H200),
)

HARDWARE: dict[str, Hardware] = {profile.name: profile for profile in _PROFILES}

# JAX's `device_kind`, exactly: a PCIe, 40 GB or laptop card of a like name has
# other figures, and a MIG slice has a part of them.
DEVICE_KINDS: dict[str, str] = {
    "cpu": "cpu-core",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA GeForce RTX 5090": "rtx-5090",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
}


# Compute capabilities (developer.nvidia.com/cuda-gpus): of the profiles, and of names
# that have none.
_CAPABILITIES = {
    "a100": (8, 0),
    "rtx-4090": (8, 9),
    "h100": (9, 0),
    "rtx-5090": (12, 0),
}
_NAMED_CAPABILITIES = (
    (r"RTX 50\d\d|RTX PRO", (12, 0)),
    (r"B[123]00", (10, 0)),
    (r"H[128]00|H20", (9, 0)),
    (r"RTX 40\d\d|L4\b|L40|\bAda\b", (8, 9)),
    (r"RTX 30\d\d|A10G?\b|A16\b|A40\b|RTX A\d", (8, 6)),
    (r"A[18]00|A30\b", (8, 0)),
)
_OLDER = (7, 5)


def hardware_for(
    device_kind: str, capability: tuple[int, int] | None = None
) -> Hardware:
    """The profile of `jax.Device.device_kind`; of one core for "cpu".

    A device that is not in DEVICE_KINDS has the figures of the profile nearest to it
    by compute capability, and sources that say so.

    Args:
      device_kind: as JAX says it.
      capability: the device's, (major, minor); None to go by its name.
    """
    if device_kind in DEVICE_KINDS:
        return HARDWARE[DEVICE_KINDS[device_kind]]
    if capability is None:
        matches = (
            own for name, own in _NAMED_CAPABILITIES if re.search(name, device_kind)
        )
        capability = next(matches, _OLDER)
    major, minor = capability

    def distance(name: str) -> tuple[int, int]:
        other, its_minor = _CAPABILITIES[name]
        return abs(other - major), abs(its_minor - minor)

    nearest = min(_CAPABILITIES, key=distance)
    source = f"estimated: that of {nearest}, the nearest by compute capability"
    return dataclasses.replace(
        HARDWARE[nearest],
        name=device_kind,
        peak_source=source,
        bandwidth_source=source,
        memory_source=source,
    )
