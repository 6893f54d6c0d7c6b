"""What a candidate costs, from its config alone."""

import dataclasses

from arch import ArchitectureConfig
from arch.cost import (
    Hardware,
    decode_ms,
    forward_flops,
    latency_ms,
    parameters,
    prefill_ms,
    size_mib,
    stored_parameters,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
    """The analytic half of an evaluation."""

    parameters: int  # trained
    stored_parameters: int  # left after pruning
    size_mib: float  # of the exported weights
    forward_flops: int  # batch 1, 128 tokens
    latency_ms: float  # likewise, or as it was asked for


LATENCIES = {"estimate": latency_ms, "prefill": prefill_ms, "decode": decode_ms}


def costs_of(
    config: ArchitectureConfig, hardware: Hardware, latency: str = "estimate"
) -> Costs:
    """Costs of the exported model on the hardware; `latency` is one of LATENCIES."""
    return Costs(
        parameters=parameters(config),
        stored_parameters=stored_parameters(config),
        size_mib=size_mib(config),
        forward_flops=forward_flops(config),
        latency_ms=LATENCIES[latency](config, hardware),
    )
