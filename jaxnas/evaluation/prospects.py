"""What a candidate comes to when it trains on, and what decides the winner."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, TypeAlias

from arch import ArchitectureConfig
from jaxnas.evaluation.training_log import Training, TrainingLog
from jaxnas.population.trainer import Trainer
from jaxnas.training.curves import extrapolated
from jaxnas.training.phase import Phase
from jaxnas.training.scoring import Metrics

# The steps that a model would train on for as the winner, told those that it has done.
Ahead: TypeAlias = Callable[[ArchitectureConfig, int], float]


class Judged(Protocol):
    """What is known of a candidate: an `Evaluation`, or a result."""

    @property
    def metrics(self) -> Metrics | None:
        """If it succeeded."""
        ...

    @property
    def fitness(self) -> float | None:
        """If it succeeded."""
        ...


@dataclasses.dataclass(frozen=True)
class Prospects:
    """What candidates come to when they train on.

    Attributes:
      trainer: whose phases they train in.
      trainings: what is known of these.
      steps_ahead: where what decides is what a candidate would reach; None where
        fitness does.
    """

    trainer: Trainer
    trainings: TrainingLog
    steps_ahead: Ahead | None = None

    def worth(
        self,
        config: ArchitectureConfig,
        found: Judged,
        phase: Phase,
        training: Training | None = None,
    ) -> float | None:
        """What decides whether it wins: fitness, or less the loss that it comes to.

        Args:
          config: the candidate.
          found: what is known of it in the phase.
          phase: see `Phase`.
          training: in that phase, if it is not recorded yet.

        Returns:
          Higher is better; None if it failed.
        """
        if self.steps_ahead is None or found.metrics is None:
            return found.fitness
        now = self.trainer.rungs[phase.rung].steps
        then = now + self.steps_ahead(config, now)
        return -self.loss(config, found.metrics.loss, phase, then, training)

    def loss(
        self,
        config: ArchitectureConfig,
        loss: float,
        phase: Phase,
        then: float,
        training: Training | None = None,
    ) -> float:
        """A loss less what the learning curve still has to fall.

        Args:
          config: whose loss it is, after its compression.
          loss: after the phase.
          phase: see `Phase`.
          then: the step at which training would end.
          training: in that phase, if it is not recorded yet.
        """
        curve: list[tuple[int, float]] = []
        for earlier in self.trainer.phases[: phase.rung + 1]:
            known = self.trainings.find(config, earlier)
            if earlier.rung == phase.rung and training is not None:
                known = training
            if known is not None and known.stopped is not None:
                return loss
            curve += () if known is None else known.curve
        if len(curve) < 2:
            return loss
        now = self.trainer.rungs[phase.rung].steps
        return loss - extrapolated(curve, now) + extrapolated(curve, then)
