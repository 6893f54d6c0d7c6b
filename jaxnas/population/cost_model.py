"""What training costs in seconds and bytes, before anything is compiled.

A program's work is counted from its shape, and a few rates turn counts into
seconds. They were fitted once, to measured programs (`python
experiments/speed/rates.py`): those of a CPU stand in rates.json, those of a GPU in
rates_gpu.json. Plans depend on how rates compare, and that holds from one device to
the next; how fast this one is, a run learns as it goes, see
`jaxnas.population.pace`.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import NamedTuple

from arch import ArchitectureConfig
from arch.cost import forward, list_ops, parameters, sizes_of
from arch.model import UNROLLED_LAYERS
from jaxnas.population.program import Program
from jaxnas.storage.jsonl import Json
from jaxnas.training.settings import TrainSettings

# Layers one by one take this much of a loop's step: 0.74 to 0.91 at widths 96 to
# 512 on a CPU, median 0.78 (python experiments/speed/forms.py).
UNROLLED_FACTOR = 0.8

# Of a program that is exact: 0.88 to 0.96 at widths of 64 and 96, median 0.95.
EXACT_UNROLLED_FACTOR = 0.95

# What compiles quickly takes this much of the time: 0.61 to 0.81, by family
# (python experiments/speed/compiling.py).
QUICK_FACTOR = 0.7


class StepWork(NamedTuple):
    """What one training step of one member does."""

    step: float  # 1
    layers: float  # blocks run
    tokens: float  # positions in a row, for what runs token by token, x blocks
    flops: float  # of matrix products, forward and backward
    values: float  # activations read and written, forward and backward
    parameters: float  # that the optimizer updates, padding included


LAUNCHES = ("step", "layers", "tokens")


class CompileWork(NamedTuple):
    """What a compilation depends on."""

    program: float  # 1
    elastic: float  # 1 if traits are data
    blocks: float  # compiled for themselves


def work_of(
    program: Program, config: ArchitectureConfig, settings: TrainSettings
) -> StepWork:
    """A training step of the member in the program.

    Layers that the member lacks are skipped, but under `vmap`.
    """
    depth = program.shape.num_layers if program.vmapped else config.num_layers
    return _work(program.shape, depth, settings.batch, settings.window)


@functools.lru_cache(maxsize=4096)
def _work(shape: ArchitectureConfig, depth: int, batch: int, tokens: int) -> StepWork:
    run = dataclasses.replace(shape, num_layers=depth)
    ops = list_ops(sizes_of(run), forward(batch, tokens))
    scanned = shape.arch_type in ("mamba", "rwkv")
    return StepWork(
        step=1.0,
        layers=float(depth),
        tokens=float(depth * tokens * scanned),
        flops=3.0 * float(sum(op.count * op.flops for op in ops)),
        values=3.0 * float(sum(op.count * (op.read + op.written) for op in ops)),
        parameters=float(parameters(shape)),
    )


def compile_work(program: Program) -> CompileWork:
    """The program's training and scoring."""
    blocks = 1 if is_looped(program) else program.shape.num_layers
    return CompileWork(1.0, float(program.elastic), float(blocks))


def is_looped(program: Program) -> bool:
    """True if the program's layers are a loop."""
    if program.form == "exact":
        return program.shape.num_layers > UNROLLED_LAYERS
    return program.form != "unrolled"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """Turns work into seconds and bytes; a table of rates for each family.

    Attributes:
      step: family -> seconds for each unit of `StepWork`.
      compile: family -> seconds for each unit of `CompileWork`.
      memory: family -> (bytes a parameter, bytes a value of `StepWork.values`).
      handling: seconds a parameter of the shape, to draw, pad and take out a member.
      workers: members trained at once, as the step rates were measured.
      overlaps: whether launches run ahead of the work, so that the slower counts.
    """

    step: dict[str, list[float]]
    compile: dict[str, list[float]]
    memory: dict[str, list[float]]
    handling: float = 0.0
    workers: int = 1
    overlaps: bool = False

    def step_seconds(
        self, program: Program, config: ArchitectureConfig, settings: TrainSettings
    ) -> float:
        """One step of one call's lanes, while all workers are busy."""
        rates = self.step[program.shape.arch_type]
        work = work_of(program, config, settings)
        launches = done = 0.0
        for name, rate, amount in zip(work._fields, rates, work, strict=True):
            if name in LAUNCHES:  # under `vmap` all lanes are one launch
                launches += rate * amount * (1 if program.vmapped else program.lanes)
            else:
                done += rate * amount * program.lanes
        if self.overlaps:
            return max(launches, done)
        seconds = launches + done
        if is_looped(program):
            return seconds
        return seconds * (UNROLLED_FACTOR if program.elastic else EXACT_UNROLLED_FACTOR)

    def compile_seconds(self, program: Program) -> float:
        """The program's compilation, while all workers are busy."""
        rates = self.compile[program.shape.arch_type]
        seconds = sum(
            rate * amount
            for rate, amount in zip(rates, compile_work(program), strict=True)
        )
        return seconds * (QUICK_FACTOR if program.quick else 1.0)

    def memory_bytes(self, program: Program, settings: TrainSettings) -> float:
        """Bytes of the device that one call takes."""
        a_parameter, a_value = self.memory[program.shape.arch_type]
        work = work_of(program, program.shape, settings)
        one = a_parameter * work.parameters + a_value * work.values
        return one * program.lanes

    def to_dict(self) -> Json:
        """As JSON types."""
        return dataclasses.asdict(self)


@functools.cache
def fitted_rates(platform: str = "cpu") -> Rates:
    """The rates of the machine on which they were fitted, of `jax.Device.platform`."""
    name = "rates.json" if platform == "cpu" else "rates_gpu.json"
    text = Path(__file__).with_name(name).read_text()
    return Rates(**json.loads(text)["rates"])
