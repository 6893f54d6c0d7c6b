"""What a model costs and promises by its sizes alone, as objectives by name."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from arch.cost import (
    MIB,
    Hardware,
    Workload,
    decode,
    forward,
    prefill,
    state_of,
    total_bytes,
    total_flops,
    total_parameters,
)
from arch.cost.sizes import Amount, Sizes
from arch.cost.totals import FLOAT32_BYTES
from arch.scaling.laws import ScalingLaw
from arch.scaling.predicted_loss import DEFAULT_LAW, capacity_of, expected_loss
from arch.scaling.shape import UNCERTAINTY, shape_penalty
from jaxnas.analytic.tensor_parallel import link_of, shared_seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Use:
    """How a model is trained and run.

    Raises:
      ValueError: a count below 1, or no utilization in (0, 1].
    """

    hardware: Hardware
    batch: int = 1  # sequences side by side
    prompt: int = 128  # tokens of each
    context: int = 128  # tokens that are remembered while another is drawn
    training_tokens: float = 1e9
    devices: int = 1  # that share weights and work: see `tensor_parallel`
    link: float | None = None  # bytes/s between two of them; None for what is usual
    utilization: float = 0.4  # of the peak that training reaches, assumed
    law: ScalingLaw = DEFAULT_LAW
    shape: bool = False  # the loss counts `arch.scaling.shape` too
    fit_error: float = 0.0  # of a fitted law: of the logarithm, on models left out

    def __post_init__(self) -> None:
        for name in ("batch", "prompt", "context", "training_tokens", "devices"):
            if not getattr(self, name) >= 1:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is not allowed: needs at least 1"
                )
        if not 0 < self.utilization <= 1:
            raise ValueError(
                f"utilization={self.utilization!r} is not allowed: "
                f"needs above 0, at most 1"
            )

    @property
    def link_bandwidth(self) -> float:
        """Bytes a second between two devices."""
        return link_of(self.hardware) if self.link is None else self.link

    @property
    def uncertainty(self) -> float:
        """Share of the loss by which shapes are not told apart."""
        return self.fit_error or UNCERTAINTY


class CostObjective(NamedTuple):
    """A figure of a model.

    of: (sizes before pruning, sizes as exported, use) -> numbers or columns.
    """

    title: str  # of a table's column
    form: str  # how a value is written
    about: str
    of: Callable[[Sizes, Sizes, Use], Amount]


def _flops(trained: Sizes, exported: Sizes, use: Use) -> Amount:
    return total_flops(exported, forward(use.batch, use.prompt)) / 1e9


def _latency(
    workload: Callable[[Use], Workload],
) -> Callable[[Sizes, Sizes, Use], Amount]:
    def milliseconds(trained: Sizes, exported: Sizes, use: Use) -> Amount:
        reading = workload(use)
        return 1e3 * shared_seconds(
            exported, use.hardware, reading, use.devices, use.link_bandwidth
        )

    return milliseconds


def _memory(trained: Sizes, exported: Sizes, use: Use) -> Amount:
    values, sums = state_of(exported, use.batch, use.context)
    layer = values * use.hardware.value_bytes + sums * FLOAT32_BYTES
    return (total_bytes(exported) + exported.layers * layer) / use.devices / MIB


def _loss(trained: Sizes, exported: Sizes, use: Use) -> Amount:
    capacity = capacity_of(trained, exported)
    loss = expected_loss(capacity, use.training_tokens, use.law)
    return loss * (1 + shape_penalty(exported)) if use.shape else loss


def _training_flops(trained: Sizes, exported: Sizes, use: Use) -> Amount:
    window_flops = 3 * total_flops(trained, forward(1, use.context))
    return window_flops * (use.training_tokens / use.context)


def _gpu_hours(trained: Sizes, exported: Sizes, use: Use) -> Amount:
    flops_per_second = use.utilization * use.hardware.peak_flops
    return _training_flops(trained, exported, use) / flops_per_second / 3600


OBJECTIVES: dict[str, CostObjective] = {
    "params": CostObjective(
        "params",
        ",.0f",
        "parameters, before pruning",
        lambda trained, exported, use: total_parameters(trained),
    ),
    "size": CostObjective(
        "MiB",
        ",.1f",
        "MiB of the exported weights",
        lambda trained, exported, use: total_bytes(exported) / MIB,
    ),
    "flops": CostObjective("GFLOP", ",.3f", "1e9 FLOPs of a forward pass", _flops),
    "latency": CostObjective(
        "ms",
        ",.3f",
        "ms of a forward pass, logits of every token",
        _latency(lambda use: forward(use.batch, use.prompt)),
    ),
    "prefill": CostObjective(
        "prefill ms",
        ",.3f",
        "ms until the prompt is read",
        _latency(lambda use: prefill(use.batch, use.prompt)),
    ),
    "decode": CostObjective(
        "ms/token",
        ",.3f",
        "ms of one more token, the context remembered",
        _latency(lambda use: decode(use.batch, use.context)),
    ),
    "memory": CostObjective(
        "MiB in use",
        ",.0f",
        "MiB of weights and of what is remembered of the context, a device",
        _memory,
    ),
    "training_flops": CostObjective(
        "train FLOPs",
        ".3g",
        "FLOPs of the whole training, 3 forward passes a token",
        _training_flops,
    ),
    "gpu_hours": CostObjective(
        "GPU hours",
        ",.0f",
        "hours of one device that the training takes, at an assumed utilization",
        _gpu_hours,
    ),
    "loss": CostObjective(
        "pred. loss",
        ".4f",
        "predicted nats a token, by a scaling law: a ranking until it is fitted",
        _loss,
    ),
}


def columns_of(
    names: Sequence[str], trained: Sizes, exported: Sizes, use: Use
) -> list[np.ndarray]:
    """Each objective of a family's columns, float64; they broadcast."""
    return [
        np.asarray(OBJECTIVES[name].of(trained, exported, use), np.float64)
        for name in names
    ]
