"""What a long training is asked for, and what it leaves."""

import dataclasses
from typing import NamedTuple

from arch import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What `train` was asked for; all of it decides the result.

    Attributes:
      model: folder of the model.
      data: source of the corpus.
      fresh: whether to begin from untrained weights.
      fim: share of the pieces that are rearranged to fill in the middle.
      tokens: to train on, None if the budget decides.
      budget: time that all of it may take, None if the tokens decide.
      window: tokens a sample.
      batch: samples a step.
      accumulate: parts of a step's samples, one differentiated after the other.
      learning_rate: the schedule's peak.
      optimizer: of OPTIMIZERS.
      evaluate_every: steps between evaluations on the validation split.
      eval_windows: of an evaluation.
      final_windows: of each held-out split, in the end.
      patience: evaluations in a row without a better one that end the training;
        None for all of it.
      seed: of windows and weights.
      quantization: that a model from untrained weights is stored with, None for the
        model's own.
    """

    model: str
    data: str
    fresh: bool
    fim: float
    tokens: int | None
    budget: str | None
    window: int
    batch: int
    accumulate: int
    learning_rate: float
    optimizer: str = "adamw"
    evaluate_every: int
    eval_windows: int
    final_windows: int
    patience: int | None
    seed: int
    quantization: str | None = None

    @property
    def tokens_a_step(self) -> int:
        """Of all samples."""
        return self.window * self.batch


class Trained(NamedTuple):
    """What a training left: the best of its evaluations."""

    steps: int
    best_step: int
    params: Params
