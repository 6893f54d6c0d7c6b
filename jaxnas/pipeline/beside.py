"""Obvious models trained beside the winner, in threads of their own.

Each is trained as the winner was: from the same seed, on the same windows in the
same order, with the same schedules, through the run's phases up to the winner's and
then for as many steps more, as far as a budget's clock knows them. Nothing of them is
kept but their scores.
"""

import dataclasses
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import jax

from arch import ArchitectureConfig, Params
from jaxnas.clock import TRAINING_ENDS, Clock
from jaxnas.errors import reason_of
from jaxnas.pipeline.last_end import Fixed, Moving, enough_by
from jaxnas.pipeline.winner import (
    Course,
    End,
    sums_of_splits,
    train_on,
    train_saved,
    training_name,
)
from jaxnas.results.gain import Obvious, quality
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.rungs import Rung, rung_starts
from jaxnas.training.scoring import WindowSums
from jaxnas.training.single import Report, TrainingFailed, starting_state
from jaxnas.training.task import Task

NO_TIME = "there was no time to train it"


class Baseline(NamedTuple):
    """What came of one obvious model."""

    config: ArchitectureConfig
    steps: int
    reason: str | None  # if it has no scores
    sums: dict[str, WindowSums]  # by split

    def to_summary(self, planned: int) -> Obvious:
        """As the summary holds it; `planned` steps are all that the winner did."""
        metrics = {split: sums.metrics() for split, sums in self.sums.items()}
        return {
            "config": self.config.to_dict(),
            "steps": self.steps,
            "planned": planned,
            "reason": self.reason,
            "splits": {
                split: quality(dataclasses.asdict(found))
                for split, found in metrics.items()
                if found is not None
            },
        }


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BaselinePlan:
    """How the models are trained, and where that is kept.

    Attributes:
      folder: of the run.
      clock: nothing trains on after its `TRAINING_ENDS`.
      task: see `Task`.
      rungs: the phases that the winner was trained in.
      windows: of each held-out split, that score.
      failed: told of a model that failed, and how.
      at_once: models that train at the same time, the last first; None for all.
    """

    folder: RunFolder
    clock: Clock
    task: Task
    rungs: Sequence[Rung]
    windows: int
    failed: Callable[[ArchitectureConfig, str], None]
    at_once: int | None = None

    def first_course(self) -> Course:
        """The phases, as one training without a stop."""
        settings, tokens = self.task.settings, len(self.task.dataset.train)
        starts = rung_starts(self.task.seed, tokens, settings, self.rungs)
        return Course(starts, "dropout", self.rungs[-1].schedule(settings))

    def name(self, model: ArchitectureConfig, *steps: int) -> str:
        """Of a part of a model's training: the phases, or so many steps more."""
        return f"obvious-{training_name(model, len(self.rungs) - 1, *steps)}"


class Stopped(Exception):
    """The run ends before the models do."""


class Beside:
    """Trains models in threads until the block ends; an error in it stops them."""

    def __init__(
        self, plan: BaselinePlan, models: Sequence[ArchitectureConfig], report: Report
    ) -> None:
        """`report` is told of their steps once no other training goes on."""
        self._plan, self._models, self._report = plan, models, report
        self._end: Future[End] = Future()  # of the winner's last training
        self._stop, self._alone = threading.Event(), threading.Event()
        self._begun = {model: threading.Event() for model in models}

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._plan.at_once or max(1, len(self._models)))
        self._futures = {
            one: self._pool.submit(self._outcome, one) for one in self._models[::-1]
        }
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stop.set()
        self._end.cancel()
        self._pool.shutdown(cancel_futures=True)

    def wait_until_begun(self, seconds: float | None = None) -> None:
        """Waits until all are compiled, and train; for so many seconds at most."""
        end = None if seconds is None else time.monotonic() + seconds
        for event in self._begun.values():
            event.wait(None if end is None else max(0.0, end - time.monotonic()))

    def train_on_until(self, end: End) -> None:
        """Says when the winner's last training ends; the first word counts."""
        if not self._end.done():
            self._end.set_result(end)

    def results(self) -> list[Baseline]:
        """Waits for them; in the models' order."""
        self._alone.set()
        return [self._futures[model].result() for model in self._models]

    def _outcome(self, model: ArchitectureConfig) -> Baseline:
        """Trains and scores a model; whatever it fails of is in the result."""
        task, windows = self._plan.task, self._plan.windows
        reason, steps, sums = None, 0, dict[str, WindowSums]()
        try:
            steps, params = self._train(model)
            if steps:
                sums = sums_of_splits(model, task, params, windows)
            else:
                reason = NO_TIME
            if any(one.metrics() is None for one in sums.values()):
                raise TrainingFailed("the loss on a held-out split is not finite")
        except (TrainingFailed, jax.errors.JaxRuntimeError, MemoryError) as error:
            self._plan.failed(model, traceback.format_exc())
            reason, sums = reason_of(error), {}
        finally:
            self._begun[model].set()
        return Baseline(model, steps, reason, sums)

    def _train(self, model: ArchitectureConfig) -> tuple[int, Params]:
        """Steps done, and the parameters they left."""
        plan, task, times = self._plan, self._plan.task, list[tuple[float, int]]()
        course, first = plan.first_course(), plan.rungs[-1].steps

        def report(done: int, total: int, loss: float) -> None:
            if self._stop.is_set():
                raise Stopped
            self._begun[model].set()
            times.append((time.monotonic(), done))
            if self._alone.is_set():
                self._report(done, total, loss)

        state = train_saved(
            model,
            task,
            starting_state(model, task),
            course,
            self._checkpoints(plan.name(model)),
            time.monotonic,
            report,
            enough_by(plan.clock, plan.name(model)),
        )
        plan.clock.decide(plan.name(model), int(state.step))  # also if a resume is late
        self._begun[model].set()  # an earlier process may have done all of it
        if int(state.step) < first:  # out of time
            return int(state.step), state.params
        winners = self._end.result()
        end = self._last_end(model, winners, _seconds_of_a_step(times))
        checkpoints = self._checkpoints(plan.name(model, winners.steps))
        more, params = train_on(
            model, task, state.params, end, checkpoints, time.monotonic, report
        )
        return first + more, params

    def _checkpoints(self, name: str) -> Checkpoints:
        return Checkpoints(self._plan.folder.finishing / name, keep=1)

    def _last_end(
        self, model: ArchitectureConfig, winners: End, a_step: float | None
    ) -> End:
        """As the winner's, or sooner if there is no time for that."""
        clock = self._plan.clock
        if clock.budget is None:
            return winners
        left, planned = clock.left(TRAINING_ENDS), winners.steps
        fit = planned if a_step is None else int(max(0.0, left) / a_step)
        name = f"last steps of {self._plan.name(model)}"
        steps = clock.decide(name, min(planned, fit))
        if not steps:
            return Fixed(0)
        target = lambda: winners.now
        return Moving(clock, name, steps, winners.most, target)


def _seconds_of_a_step(times: Sequence[tuple[float, int]]) -> float | None:
    """From the first call on, which compiled; None without a second one."""
    if len(times) < 2:
        return None
    (begin, before), (end, after) = times[0], times[-1]
    return (end - begin) / (after - before)
