"""Which trainings were done, so that none is done twice."""

import dataclasses
from typing import NotRequired, TypedDict

from arch import ArchitectureConfig
from jaxnas.errors import UsageError
from jaxnas.storage.jsonl import Json, Lines
from jaxnas.storage.kinds import misfit
from jaxnas.training.curves import Curve
from jaxnas.training.keys import training_key
from jaxnas.training.phase import FIRST, Phase
from jaxnas.training.scoring import Compression, Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The outcome of one training, for every compression that was scored."""

    key: str
    metrics: dict[Compression, Metrics | None]  # None: its loss is not finite
    reason: str | None = None  # why it failed
    stopped: int | None = None  # the step at which nothing was left to win
    curve: Curve = ()  # of the stable part of its training
    # The values of the user's objectives by name, or why there are none; by config.
    extra: dict[str, dict[str, float] | str] = dataclasses.field(default_factory=dict)


class TrainingLog:
    """Trainings by key, kept as lines if there is a file for them."""

    def __init__(self, lines: Lines | None = None):
        """Reads the file's trainings."""
        self._lines = lines
        self._known: dict[str, Training] = {}
        for number, line in enumerate(self._lines or (), 1):
            try:
                training = training_of(line)
            except ValueError as error:
                raise UsageError(
                    f"{lines and lines.path} is damaged at line {number}: {error}"
                ) from None
            self._known[training.key] = training

    def __len__(self) -> int:
        return len(self._known)

    def find(self, config: ArchitectureConfig, phase: Phase = FIRST) -> Training | None:
        """The training of the config in a phase, if it was done."""
        return self._known.get(training_key(config, phase.stage))

    def add(self, training: Training) -> None:
        """Remembers one more."""
        self._known[training.key] = training
        if self._lines is not None:
            self._lines.append(_written(training))


class _Scored(TypedDict):
    quantization: str | None
    pruning_ratio: float
    found: Metrics | None


class _Line(TypedDict):
    key: str
    reason: str | None
    stopped: int | None
    curve: list[tuple[int, float]]
    metrics: list[_Scored]
    extra: NotRequired[dict[str, dict[str, float] | str]]


def _written(training: Training) -> Json:
    metrics = [
        compression._asdict() | {"found": metrics and dataclasses.asdict(metrics)}
        for compression, metrics in training.metrics.items()
    ]
    line = {
        "key": training.key,
        "reason": training.reason,
        "stopped": training.stopped,
        "curve": training.curve,
        "metrics": metrics,
    }
    return line | ({"extra": training.extra} if training.extra else {})


def training_of(line: Json) -> Training:
    """The training in a line of trainings.jsonl.

    Raises:
      ValueError: the line holds none: where it does not.
    """
    if (wrong := misfit(line, _Line)) is not None:
        raise ValueError(wrong)
    metrics = {
        Compression(entry["quantization"], entry["pruning_ratio"]): (
            entry["found"] and Metrics(**entry["found"])
        )
        for entry in line["metrics"]
    }
    return Training(
        key=line["key"],
        reason=line["reason"],
        stopped=line["stopped"],
        curve=tuple((int(step), float(loss)) for step, loss in line["curve"]),
        metrics=metrics,
        extra=line.get("extra", {}),
    )
