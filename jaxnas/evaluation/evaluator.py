"""From a config to its objectives: costs, real training, compression, score."""

import collections
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from arch import ArchitectureConfig, Params
from arch.cost import Hardware
from jaxnas.errors import reason_of
from jaxnas.evaluation.costs import Costs, costs_of
from jaxnas.evaluation.fitness import FitnessSettings, fitness_of, objectives_of
from jaxnas.evaluation.prospects import Ahead, Prospects
from jaxnas.evaluation.training_log import Training, TrainingLog
from jaxnas.evaluation.user_objectives import Extra, ObjectiveFailed, compression_of
from jaxnas.population.call import Outcome
from jaxnas.population.pace import Allowance
from jaxnas.population.trainer import NOTHING_AHEAD, Outlook, Trainer
from jaxnas.storage.jsonl import Json
from jaxnas.training.phase import FIRST, Phase
from jaxnas.training.scoring import Compression, Metrics
from jaxnas.training.single import Report, TrainingFailed
from jaxnas.training.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known of a candidate; a failure is a result too."""

    status: str  # ok | failed | skipped
    costs: Costs
    reason: str | None = None  # if not ok
    metrics: Metrics | None = None  # if ok, after the config's compression
    objectives: list[float] | None = None  # if ok, minimised
    fitness: float | None = None  # if ok, higher is better

    def to_dict(self) -> Json:
        """As JSON types."""
        return dataclasses.asdict(self)


Found: TypeAlias = Callable[[ArchitectureConfig, Evaluation], None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluator:
    """Evaluates configs on one task: trains what it does not know yet.

    Attributes:
      trainer: of all phases; its observer is told of each training.
      hardware: whose latency is an objective.
      fitness: weights and targets of the score.
      max_size: in MiB; larger models are not trained.
      max_latency: in ms; slower models are not trained.
      latency: which one is an objective, of `LATENCIES`.
      extra: the user's objectives, asked for each of the trainer's compressions.
      trainings: what was trained before, and what will be from now on.
      steps_ahead: see `Prospects`.
    """

    trainer: Trainer
    hardware: Hardware
    fitness: FitnessSettings
    max_size: float = math.inf
    max_latency: float = math.inf
    latency: str = "estimate"
    extra: Extra = dataclasses.field(default_factory=Extra)
    trainings: TrainingLog = dataclasses.field(default_factory=TrainingLog)
    steps_ahead: Ahead | None = None

    @property
    def task(self) -> Task:
        """What it trains for."""
        return self.trainer.task

    @property
    def prospects(self) -> Prospects:
        """What its candidates come to when they train on."""
        return Prospects(self.trainer, self.trainings, self.steps_ahead)

    def __call__(
        self,
        config: ArchitectureConfig,
        report: Report = lambda *_: None,
        phase: Phase = FIRST,
    ) -> Evaluation:
        """Evaluates one config; whatever goes wrong in it is in the result.

        Raises:
          ValueError: the config's vocabulary is smaller than the tokenizer's, or
            its sequences than a window.
        """
        return self.evaluate([config], report, phase=phase)[config]

    def evaluate(
        self,
        configs: Sequence[ArchitectureConfig],
        report: Report = lambda *_: None,
        outlook: Outlook = NOTHING_AHEAD,
        phase: Phase = FIRST,
        generation: int | None = None,
        enough: Callable[[int], bool] = lambda succeeded: False,
        begins: Callable[[int, float], bool] = lambda succeeded, seconds: True,
        found: Found = lambda config, evaluation: None,
    ) -> dict[ArchitectureConfig, Evaluation]:
        """Evaluates configs together, in as few seconds as the planner can.

        Args:
          configs: in any number.
          report: told of the steps of all of them.
          outlook: what may come after them.
          phase: see `Phase`.
          generation: recorded with the plan.
          enough: told how many are known to succeed, returns whether to train no
            more, and stop what is being trained; asked before the first training
            and while they go on.
          begins: told that number and the seconds that a call would take, returns
            whether it may begin.
          found: called with each config and its evaluation, in the configs' order,
            as soon as those before it are known.

        Returns:
          Evaluations by config, of those that are known in the end.

        Raises:
          ValueError: as `__call__`, before anything is trained.
        """
        for config in configs:
            self._check(config)
        costs = {config: self._costs(config) for config in configs}
        known = {
            config: self._skipped(cost) or self._known(config, cost, phase)
            for config, cost in costs.items()
        }
        order = collections.deque(known)
        succeeded = sum(
            one is not None and one.status == "ok" for one in known.values()
        )

        def hand_over() -> None:
            while order and (evaluation := known[order[0]]) is not None:
                found(order.popleft(), evaluation)

        def trained(same: Sequence[ArchitectureConfig]) -> bool:
            nonlocal succeeded
            for config in same:
                evaluation = self._known(config, costs[config], phase)
                succeeded += evaluation is not None and evaluation.status == "ok"
                known[config] = evaluation
            hand_over()
            return not enough(succeeded)

        hand_over()
        if not enough(succeeded):
            chosen = [config for config, known_ in known.items() if known_ is None]
            allowance = Allowance(
                begins=lambda seconds: begins(succeeded, seconds),
                over=lambda: enough(succeeded),
            )
            self._train(chosen, trained, report, outlook, phase, generation, allowance)
        evaluations = {
            config: evaluation for config, evaluation in known.items() if evaluation
        }
        for config in order:
            if config in evaluations:
                found(config, evaluations[config])
        return evaluations

    def fits(self, config: ArchitectureConfig) -> bool:
        """Whether a config is within the limits, so that it would be trained."""
        return self._skipped(self._costs(config)) is None

    def untrained(
        self, configs: Sequence[ArchitectureConfig], phase: Phase = FIRST
    ) -> list[ArchitectureConfig]:
        """Those that have to be trained to be known, in their order."""
        costs = {config: self._costs(config) for config in configs}
        return [
            config
            for config in configs
            if self._skipped(costs[config]) is None
            and self._known(config, costs[config], phase) is None
        ]

    def weights(
        self, config: ArchitectureConfig, report: Report, phase: Phase = FIRST
    ) -> Params:
        """What a config's training left, by training it again as it was planned.

        Raises:
          TrainingFailed: the loss stopped being finite.
        """
        if self._has_stopped(config, phase):
            return self.weights(config, report, self.trainer.below(phase))
        key, outcomes = self.trainer.key(config, phase), list[Outcome]()

        def take(outcome: Outcome) -> bool:
            outcomes.append(outcome)
            return True

        asked = {key: [compression_of(config)]}
        self.trainer.run({key: config}, asked, take, report, phase=phase)
        [outcome] = outcomes
        weights = outcome.weights_for(config.pruning_ratio)
        if weights is None:
            raise TrainingFailed(str(outcome.error))
        return weights

    def _check(self, config: ArchitectureConfig) -> None:
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

    def _skipped(self, costs: Costs) -> Evaluation | None:
        if costs.size_mib > self.max_size:
            reason = f"{costs.size_mib:.1f} MiB is over max_size={self.max_size}"
        elif costs.latency_ms > self.max_latency:
            reason = f"{costs.latency_ms:.3g} ms is over max_latency={self.max_latency}"
        else:
            return None
        return Evaluation(status="skipped", costs=costs, reason=reason)

    def _known(
        self, config: ArchitectureConfig, costs: Costs, phase: Phase
    ) -> Evaluation | None:
        training = self.trainings.find(config, phase)
        if training is None and self._has_stopped(config, phase):
            # There was nothing left to win: the phase before has its result.
            below = self.trainer.below(phase)
            before = self._known(config, costs, below)
            training = self.trainings.find(config, below)
            if before is not None and training is not None:
                key = self.trainer.key(config, phase)
                self.trainings.add(dataclasses.replace(training, key=key))
            return before
        if training is None:
            return None
        # Known, but never scored so: the same weights are trained once more.
        unscored = not training.reason and (
            compression_of(config) not in training.metrics
            or self.extra.lacks(config, training)
        )
        return None if unscored else self._judge(config, costs, training)

    def _train(
        self,
        configs: Sequence[ArchitectureConfig],
        trained: Callable[[Sequence[ArchitectureConfig]], bool],
        report: Report,
        outlook: Outlook,
        phase: Phase,
        generation: int | None,
        allowance: Allowance,
    ) -> None:
        """Trains the configs, each training once; records what it finds.

        After each training, `trained` is called with the configs that share it, and
        returns whether to go on.
        """
        sharing: dict[str, list[ArchitectureConfig]] = {}
        for config in configs:
            sharing.setdefault(self.trainer.key(config, phase), []).append(config)

        def take(outcome: Outcome) -> bool:
            same = sharing[outcome.key]
            self.trainings.add(self._training(same, outcome, phase))
            return trained(same)

        first = {key: same[0] for key, same in sharing.items()}
        wanted = {key: self._asked(same, phase) for key, same in sharing.items()}
        self.trainer.run(
            first, wanted, take, report, outlook, phase, generation, allowance
        )

    def _asked(
        self, same: Sequence[ArchitectureConfig], phase: Phase
    ) -> list[Compression]:
        """How the weights of a training are to be scored, for those that share it."""
        known = self.trainings.find(same[0], phase)
        ahead = self.trainer.scored_ahead(phase)
        every = dict.fromkeys([*ahead, *map(compression_of, same)])
        if known is None or any(self.extra.lacks(config, known) for config in same):
            return list(every)
        return [one for one in every if one not in known.metrics]

    def _training(
        self, same: Sequence[ArchitectureConfig], outcome: Outcome, phase: Phase
    ) -> Training:
        """What is known of a training now, beside what was known before."""
        config, observer = same[0], self.trainer.observer
        known = self.trainings.find(config, phase)
        training = Training(
            key=outcome.key,
            metrics=known.metrics if known else {},
            extra=known.extra if known else {},
        )
        if outcome.error is not None:
            observer.failed(config, outcome.trace)
            return dataclasses.replace(training, reason=reason_of(outcome.error))
        training = dataclasses.replace(
            training,
            metrics=training.metrics | outcome.metrics,
            stopped=outcome.stopped,
            curve=outcome.curve,
        )
        training = self.extra.measured(
            training, same, outcome, self._costs, observer.failed
        )
        for one in same:  # how good the weights are is each compression's to say
            weights = outcome.weights_for(one.pruning_ratio)
            if weights is not None:
                judged = self._judge(one, self._costs(one), training)
                worth = self.prospects.worth(one, judged, phase, training)
                observer.trained(one, weights, worth, phase)
        return training

    def _costs(self, config: ArchitectureConfig) -> Costs:
        return costs_of(config, self.hardware, self.latency)

    def _has_stopped(self, config: ArchitectureConfig, phase: Phase) -> bool:
        """Whether the config was done with in the phase before."""
        if not phase.rung:
            return False
        before = self.trainings.find(config, self.trainer.below(phase))
        return before is not None and before.stopped is not None

    def _judge(
        self, config: ArchitectureConfig, costs: Costs, training: Training
    ) -> Evaluation:
        metrics = training.metrics.get(compression_of(config))
        if metrics is None:
            reason = training.reason or "the validation loss is not finite"
            return Evaluation(status="failed", costs=costs, reason=reason)
        objectives = objectives_of(metrics.accuracy, costs.size_mib, costs.latency_ms)
        try:
            objectives += self.extra.found(config, training)
        except ObjectiveFailed as error:
            return Evaluation(status="failed", costs=costs, reason=str(error))
        return Evaluation(
            status="ok",
            costs=costs,
            metrics=metrics,
            objectives=objectives,
            fitness=fitness_of(objectives, self.fitness),
        )
