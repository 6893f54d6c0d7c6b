"""What a candidate costs, from its config alone."""

import dataclasses

from arch import ArchitectureConfig
from arch.cost import (
    Hardware,
    forward_flops,
    latency_ms,
    parameters,
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
    latency_ms: float  # likewise, by the roofline


def costs_of(config: ArchitectureConfig, hardware: Hardware) -> Costs:
    """Costs of the exported model on the hardware."""
    return Costs(
        parameters=parameters(config),
        stored_parameters=stored_parameters(config),
        size_mib=size_mib(config),
        forward_flops=forward_flops(config),
        latency_ms=latency_ms(config, hardware),
    )
