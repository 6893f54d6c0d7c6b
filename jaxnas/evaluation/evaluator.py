"""From a config to its objectives: costs, real training, compression, score."""

import dataclasses
import re
import traceback
from collections.abc import Callable, Sequence

import numpy as np

from arch import ArchitectureConfig
from arch.cost import Hardware
from jaxnas.evaluation.analytic import Costs, costs_of
from jaxnas.evaluation.scored import Compression, Metrics, score
from jaxnas.evaluation.task import Task
from jaxnas.evaluation.trained import Report, train
from jaxnas.evaluation.trainings import Training, Trainings, training_key
from jaxnas.fitness import FitnessSettings, fitness_of, objectives_of
from jaxnas.train.phases import Phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known of a candidate; a failure is a result too."""

    status: str  # ok | failed | skipped
    costs: Costs
    reason: str | None = None  # if not ok
    metrics: Metrics | None = None  # if ok, after the config's compression
    objectives: list[float] | None = None  # if ok, minimised
    fitness: float | None = None  # if ok, higher is better

    def to_dict(self) -> dict:
        """As JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluator:
    """Evaluates configs on one task.

    Attributes:
      compressions: scored after every training, for those that may ask later.
      trainings: what was trained before, and what will be from now on.
      on_trained: called with each newly trained config, its weights and its
        evaluation, before the training is remembered.
      on_failed: called with each config whose training failed and the traceback.
    """

    task: Task
    phase: Phase
    hardware: Hardware
    fitness: FitnessSettings
    max_size: float  # MiB; larger models are not trained
    eval_windows: int
    compressions: Sequence[Compression] = ()
    trainings: Trainings = dataclasses.field(default_factory=Trainings)
    on_trained: Callable[[ArchitectureConfig, dict, Evaluation], None] | None = None
    on_failed: Callable[[ArchitectureConfig, str], None] = lambda config, trace: None

    def __call__(
        self, config: ArchitectureConfig, report: Report = lambda *_: None
    ) -> Evaluation:
        """Evaluates one config; whatever goes wrong in it is in the result.

        Raises:
          ValueError: the config's vocabulary is smaller than the tokenizer's, or
            its sequences than a window.
        """
        tokens = self.task.dataset.vocab_size
        if config.vocab_size < tokens:
            raise ValueError(
                f"vocab_size={config.vocab_size} is less than the tokenizer's {tokens}"
            )
        window = self.task.settings.window
        if config.max_seq_length < window:
            raise ValueError(
                f"max_seq_length={config.max_seq_length} is less than the window of "
                f"{window} tokens"
            )
        costs = costs_of(config, self.hardware)
        if costs.size_mib > self.max_size:
            reason = f"{costs.size_mib:.1f} MiB is over max_size={self.max_size}"
            return Evaluation(status="skipped", costs=costs, reason=reason)
        training = self.trainings.find(config)
        asked = Compression(config.quantization, config.pruning_ratio)
        # Known, but never scored so: the same weights are trained once more.
        unscored = training and not training.reason and asked not in training.metrics
        if training is None or unscored:
            training = self._train(config, costs, report)
        return self._judge(config, costs, training)

    def validation_windows(self) -> np.ndarray:
        """i32[<= eval_windows, T+1], the same for every candidate."""
        return self.task.windows("validation", self.eval_windows)

    def _train(self, config, costs, report) -> Training:
        key = training_key(config)
        asked = Compression(config.quantization, config.pruning_ratio)
        known = self.trainings.find(config)
        before = known.metrics if known else {}
        asked_for = dict.fromkeys([*self.compressions, asked])
        wanted = [one for one in asked_for if one not in before]
        try:
            params, _ = train(config, self.task, self.phase, report=report)
            found = score(config, self.task, params, self.validation_windows(), wanted)
        except Exception as error:  # any: a candidate's failure is its result
            self.on_failed(config, traceback.format_exc())
            training = Training(key=key, metrics={}, reason=_reason(error))
        else:
            metrics = before | dict(zip(wanted, found, strict=True))
            training = Training(key=key, metrics=metrics)
            if self.on_trained is not None:
                judged = self._judge(config, costs, training)
                self.on_trained(config, params, judged)
        self.trainings.add(training)
        return training

    def _judge(self, config, costs: Costs, training: Training) -> Evaluation:
        asked = Compression(config.quantization, config.pruning_ratio)
        metrics = training.metrics.get(asked)
        if metrics is None:
            reason = training.reason or "the validation loss is not finite"
            return Evaluation(status="failed", costs=costs, reason=reason)
        objectives = objectives_of(metrics.accuracy, costs.size_mib, costs.latency_ms)
        return Evaluation(
            status="ok",
            costs=costs,
            metrics=metrics,
            objectives=objectives,
            fitness=fitness_of(objectives, self.fitness),
        )


def _reason(error: Exception) -> str:
    """One line that is the same each time: no addresses, no traceback."""
    line = (str(error).strip().splitlines() or [""])[0][:300]
    line = re.sub(r"0x[0-9a-fA-F]+", "0x...", line)
    return f"{type(error).__name__}: {line}"
