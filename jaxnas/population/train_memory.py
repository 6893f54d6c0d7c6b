"""What a training keeps in memory, by what it is for, from the config alone.

Weights, gradients and AdamW's two moments are counted: 4, 4 and 8 bytes a parameter.
Activations that wait for the backward pass are counted by kind, and the bytes of each
were fitted to XLA's own analysis of compiled trainings on a CPU, in float32
(`experiments/memory`): an exact program of one model, as `train` compiles it.
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

from arch import ArchitectureConfig
from arch.cost import forward, list_ops, parameters, sizes_of

FLOAT32_BYTES = 4
MOMENTS = 2  # of AdamW, a value a parameter each

_SCORES = ("scores", "softmax", "weights", "fade")  # ops that write T x T values
_FEEDFORWARD = (
    "up",
    "gate",
    "activation",
    "down",
    "squared_relu",
    "receptance",
    "channel_shift",
    "channel_gate",
)


class TrainingMemory(NamedTuple):
    """Bytes."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it; the corpus, which is on the device too, is not in it."""
        return sum(self)


class MemoryUse(NamedTuple):
    """Values that a forward pass writes."""

    logits: int
    scores: int
    feedforward: int
    rest: int


def training_memory(
    config: ArchitectureConfig, batch: int, window: int
) -> TrainingMemory:
    """Bytes of a training step.

    Args:
      config: of the model; pruning comes after training and saves nothing here.
      batch: windows of a step that are differentiated at once.
      window: tokens of each.
    """
    weights = FLOAT32_BYTES * parameters(config)
    rates = activation_rates()[config.arch_type]
    values = written(config, batch, window)
    kept = sum(rate * value for rate, value in zip(rates, values, strict=True))
    return TrainingMemory(weights, weights, MOMENTS * weights, round(kept))


def written(config: ArchitectureConfig, batch: int, window: int) -> MemoryUse:
    """What a forward pass over so many tokens writes, by kind."""
    found = dict.fromkeys(MemoryUse._fields, 0)
    for op in list_ops(sizes_of(config, pruned=False), forward(batch, window)):
        kind = "rest"
        if op.name == "head":
            kind = "logits"
        elif op.name in _SCORES:
            kind = "scores"
        elif op.name in _FEEDFORWARD:
            kind = "feedforward"
        found[kind] += int(op.count * op.written)
    return MemoryUse(**found)


@functools.cache
def activation_rates() -> dict[str, list[float]]:
    """Family -> bytes of each of the kinds in `MemoryUse`."""
    text = Path(__file__).with_name("train_memory.json").read_text()
    return json.loads(text)["bytes"]
