"""From settings to the parts of a run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arch import ArchitectureConfig
from arch.cost import MIB, Hardware
from arch.space import Space
from jaxnas.config import RunConfig, Settings, read_toml
from jaxnas.data import Dataset
from jaxnas.errors import UsageError
from jaxnas.evaluation.costs import costs_of
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.fitness import FitnessSettings
from jaxnas.evaluation.user_objectives import Extra, load_objectives, paths_in
from jaxnas.hardware import hardware_named
from jaxnas.population.devices import Machine
from jaxnas.population.trainer import Trainer
from jaxnas.runtime import compute_dtype
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.rungs import Rung, rungs_of
from jaxnas.training.scoring import Compression
from jaxnas.training.settings import TrainSettings
from jaxnas.training.task import Task


def within_limits(
    config: Settings, hardware: Hardware
) -> Callable[[ArchitectureConfig], bool]:
    """Whether a model keeps to the run's limits."""
    most = math.inf if config.max_latency is None else config.max_latency

    def fits(model: ArchitectureConfig) -> bool:
        costs = costs_of(model, hardware, config.latency)
        return costs.size_mib <= config.max_size and costs.latency_ms <= most

    return fits


def train_settings(config: RunConfig) -> TrainSettings:
    """How a run trains its candidates."""
    names = TrainSettings.__dataclass_fields__
    return TrainSettings(
        **{name: getattr(config, name) for name in names if hasattr(config, name)}
    )


def make_task(config: Settings, dataset: Dataset) -> Task:
    """What every candidate is trained on, and how."""
    settings = train_settings(config)
    check_window(config.window, dataset)
    return Task(
        dataset=dataset, settings=settings, seed=config.seed, dtype=compute_dtype()
    )


def check_window(window: int, dataset: Dataset) -> None:
    """Raises a UsageError if a split does not hold so many tokens."""
    for split in ("train", "validation", "test"):
        tokens = len(getattr(dataset, split))
        if tokens <= window:
            raise UsageError(
                f"window={window} is too long: the {split} split of "
                f"{dataset.spec} has {tokens} tokens"
            )


def check_settings(config: Settings) -> None:
    """Finds what is wrong with a run's settings, apart from its data.

    Raises:
      UsageError: as `make_fitness`, `hardware_named`, `load_objectives` and
        `check_earlier`.
    """
    make_fitness(config)
    if config.hardware != "auto":
        hardware_named(config.hardware)
    load_objectives(config.objectives)
    check_earlier(config)


def check_memory(config: Settings, machine: Machine) -> None:
    """Refuses a step that no model can take, before anything is compiled for it.

    Raises:
      UsageError: its logits alone do not fit.
    """
    logits = 4 * config.batch * config.window * config.vocab_size
    if logits > machine.memory:
        raise UsageError(
            f"batch={config.batch}: a step's logits of window={config.window} tokens "
            f"and vocab_size={config.vocab_size} take {logits / MIB:,.0f} MiB, "
            f"{machine.memory / MIB:,.0f} may be used"
        )


def check_earlier(config: Settings) -> None:
    """Compares the objectives with those of the run to learn from.

    Raises:
      UsageError: they are others; their number alone would not show it.
    """
    file = config.warm_start and RunFolder(Path(config.warm_start)).config
    if not file or not file.exists():  # the results alone may be there
        return
    before = read_toml(file).get("objectives")
    if paths_in(before) != paths_in(config.objectives):
        raise UsageError(
            f"warm_start: the run in {config.warm_start} has objectives={before!r}, "
            f"this one {config.objectives!r}"
        )


def make_fitness(config: Settings) -> FitnessSettings:
    """The run's scores.

    Raises:
      UsageError: they contradict each other.
    """
    names = FitnessSettings.__dataclass_fields__
    try:
        return FitnessSettings(**{name: getattr(config, name) for name in names})
    except ValueError as error:
        raise UsageError(str(error)) from None


def make_rungs(config: Settings, settings: TrainSettings) -> tuple[Rung, ...]:
    """The run's phases as rungs of one training.

    Raises:
      UsageError: they do not follow each other.
    """
    try:
        return rungs_of(config.named_phases(), settings)
    except ValueError as error:
        raise UsageError(f"phases={config.phases!r}: {error}") from None


def make_trainer(config: Settings, task: Task, **parts: Any) -> Trainer:
    """What trains the run's candidates; `parts` as for `Trainer`."""
    return Trainer(
        task=task,
        rungs=make_rungs(config, task.settings),
        eval_windows=config.eval_windows,
        flat=config.flat,
        recovery_share=config.recovery_share,
        **parts,
    )


def make_evaluator(
    config: Settings, trainer: Trainer, space: Space, **parts: Any
) -> Evaluator:
    """An evaluator of candidates in the run's space; `parts` as for `Evaluator`.

    Among them the hardware, see `hardware_of`.
    """
    return Evaluator(
        trainer=trainer,
        latency=config.latency,
        fitness=make_fitness(config),
        max_size=config.max_size,
        max_latency=math.inf if config.max_latency is None else config.max_latency,
        extra=Extra(
            objectives=load_objectives(config.objectives),
            families=space.families,
        ),
        **parts,
    )


# A training is likely to be asked for again where this many times the candidates
# are as many as the space's trainings.
_AGAIN = 10


def compressions_ahead(config: Settings, space: Space) -> list[Compression]:
    """What to score after every training, for candidates that may ask later.

    Everything that the space can do to weights, if that costs less than the
    training that it saves when one asks (a forward pass a window, against a
    forward and a backward one), and if so many are asked for that one is likely to
    come back; else nothing, and that training is done again.
    """
    quantizations, ratios = space.values("quantization"), space.values("pruning_ratio")
    every = [Compression(q, float(p)) for q in quantizations for p in ratios]
    if len(every) == 1:
        return every
    phase = next(iter(config.named_phases().values()))
    training = 3 * phase.samples * phase.epochs
    recovering = config.recovery_share * training * sum(p > 0 for p in ratios)
    scoring = len(every) * config.eval_windows
    asked = config.population * config.generations
    likely = _AGAIN * asked * len(every) >= space.distinct_count
    return every if likely and scoring + recovering <= training else []
