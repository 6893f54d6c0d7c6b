"""A long training is watched: evaluated, its best weights kept, ended early."""

from pathlib import Path

import numpy as np

from arch import ArchitectureConfig, Params
from jaxnas.export.model_folder import read_arrays, write_arrays
from jaxnas.pipeline.train_plan import TrainPlan
from jaxnas.pipeline.train_words import TrainWords
from jaxnas.storage.jsonl import Lines
from jaxnas.training.scoring import score_stored, score_windows
from jaxnas.training.single import TrainingFailed
from jaxnas.training.task import Task


class TrainWatch:
    """Evaluates every so many steps, keeps the best weights, and knows when to stop.

    The lines of a training that is gone on with are taken over.
    """

    def __init__(
        self,
        best: Path,
        plan: TrainPlan,
        config: ArchitectureConfig,
        task: Task,
        curve: Lines,
        words: TrainWords,
    ) -> None:
        self.loss: float | None = None
        self._best, self._plan, self._curve, self._words = best, plan, curve, words
        self._windows = task.windows("validation", plan.eval_windows)
        self._model = config, task
        self._begun = False

    def __call__(self, done: int, params: Params) -> bool:
        """Told the steps done and the weights, returns whether to stop there."""
        if not self._begun:  # what a killed process evaluated later is done again
            earlier = [line for line in list(self._curve) if line["step"] < done]
            self._curve.keep(len(earlier))
            self._begun = True
        if done - self._last() < self._plan.evaluate_every:
            return False
        self.evaluate(done, params)
        patience = self._plan.patience
        if patience is None:
            return False
        scores = [line["bits_per_byte"] for line in list(self._curve)]
        return len(scores) - 1 - int(np.argmin(scores)) >= patience

    def evaluate(self, done: int, params: Params, stored: bool = False) -> None:
        """Adds a line to the curve, unless the step has one.

        Args:
          done: steps.
          params: the weights after them.
          stored: they are a saved model's, rounded already.
        """
        if any(line["step"] == done for line in list(self._curve)):
            return
        score = score_stored if stored else score_windows
        config, task = self._model
        params = task.devices.on_one(params)
        metrics = score(config, task, params, self._windows).metrics()
        if metrics is None:
            raise TrainingFailed(f"the validation loss is not finite at step {done}")
        found = metrics.bits_per_byte
        if all(found < one["bits_per_byte"] for one in list(self._curve)):
            write_arrays(self._best, params, {"step": str(done)})
        line = {
            "step": done,
            "loss": self.loss,
            "bits_per_byte": found,
            "accuracy": metrics.accuracy,
        }
        self._curve.append(line)
        self._words.evaluated(line)

    def best(self) -> tuple[int, Params]:
        """The step of the best evaluation, and its weights."""
        params, about = read_arrays(self._best)
        return int(about["step"]), params

    def _last(self) -> int:
        return max((line["step"] for line in list(self._curve)), default=0)
