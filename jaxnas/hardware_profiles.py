"""More devices to plan for, by name: figures of data sheets, no clock.

Beside `arch.cost.HARDWARE`, whose devices runs recognise. Peaks are dense, of 16-bit
products with 32-bit sums where a device has them; sheets that print a figure for 2:4
sparse matrices are halved.
"""

from arch.cost import HARDWARE, Hardware

_LAUNCH = "assumed until calibrated"


def _profile(
    name: str,
    tflops: float,
    gigabytes_a_second: float,
    gigabytes: float,
    source: str,
    *,
    launch_seconds: float = 4e-6,
    value_bytes: int = 2,
    peak_source: str | None = None,
    memory_source: str | None = None,
) -> Hardware:
    return Hardware(
        name=name,
        peak_flops=tflops * 1e12,
        bandwidth=gigabytes_a_second * 1e9,
        launch_seconds=launch_seconds,
        memory_bytes=int(gigabytes * 1e9),
        value_bytes=value_bytes,
        peak_source=peak_source or source,
        bandwidth_source=source,
        launch_source=_LAUNCH,
        memory_source=memory_source or source,
    )


_ADA = "NVIDIA Ada GPU Architecture whitepaper v2.01"
_A100 = "NVIDIA A100 Tensor Core GPU datasheet"
_SNAPDRAGON = "Snapdragon 8 Gen 3 product brief: LPDDR5X at 4,800 MHz, 64 bits"
_PI = "Raspberry Pi 5 product brief: LPDDR4X-4267, 32 bits"

_PROFILES = (
    _profile("rtx-3090", 71, 936, 24, "NVIDIA Ampere GA102 whitepaper v2.1"),
    _profile("rtx-4080", 97.5, 716.8, 16, _ADA),
    _profile("l4", 121, 300, 24, "NVIDIA L4 datasheet"),
    _profile("l40s", 362.05, 864, 48, "NVIDIA L40S datasheet"),
    _profile("t4", 65, 320, 16, "NVIDIA T4 datasheet"),
    _profile("a10g", 70, 600, 24, "NVIDIA A10G datasheet"),
    _profile("a100-40gb", 312, 1555, 40, f"{_A100}, 40 GB"),
    _profile("a100-80gb-pcie", 312, 1935, 80, f"{_A100}, 80 GB PCIe"),
    _profile("h100-pcie", 756, 2000, 80, "NVIDIA H100 datasheet, PCIe"),
    _profile("b200", 2250, 8000, 180, "NVIDIA DGX B200 datasheet, an eighth of it"),
    _profile("mi300x", 1307.4, 5300, 192, "AMD Instinct MI300X data sheet"),
    _profile(
        "apple-m2",
        *(3.6, 100, 24),
        "Apple, newsroom of 6 June 2022: its GPU, 3.6 teraflops",
    ),
    _profile(
        "apple-m1-max",
        *(10.4, 400, 64),
        "Apple, newsroom of 18 October 2021: its GPU, 10.4 teraflops",
    ),
    _profile(
        "snapdragon-8-gen-3",
        *(4.0, 76.8, 12),
        _SNAPDRAGON,
        launch_seconds=1e-5,
        peak_source="assumed: its GPU's, for which there is no published figure",
        memory_source="assumed: a phone's",
    ),
    _profile(
        "raspberry-pi-5",
        *(0.1536, 17.1, 8),
        _PI,
        launch_seconds=2e-6,
        value_bytes=4,
        peak_source="4 cores x 2.4 GHz x 2 pipes x 4 float32 lanes x 2: Arm "
        "Cortex-A76 Software Optimization Guide",
    ),
)

PROFILES: dict[str, Hardware] = HARDWARE | {own.name: own for own in _PROFILES}
