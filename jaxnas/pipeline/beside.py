"""Obvious models trained beside the winner, in threads of their own.

Each is trained as the winner was: from the same seed, on the same windows in the
same order, with the same schedules, through the run's phases up to the winner's and
then for as many steps more. Nothing of them is kept but their scores.
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
from jaxnas.pipeline.winner import (
    Course,
    last_course,
    sums_of_splits,
    train_saved,
    training_name,
)
from jaxnas.results.gain import Obvious
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.loop import TrainState
from jaxnas.training.rungs import Rung, rung_starts
from jaxnas.training.scoring import WindowSums
from jaxnas.training.single import Report, TrainingFailed, starting_state
from jaxnas.training.task import Task

NO_TIME = "there was no time to train it"


class Baseline(NamedTuple):
    """What came of one obvious model."""

    config: ArchitectureConfig
    steps: int
    planned: int  # the winner's
    reason: str | None  # if it has no scores
    sums: dict[str, WindowSums]  # by split

    def to_summary(self) -> Obvious:
        """As the summary holds it."""
        metrics = {split: sums.metrics() for split, sums in self.sums.items()}
        return {
            "config": self.config.to_dict(),
            "steps": self.steps,
            "planned": self.planned,
            "reason": self.reason,
            "splits": {
                split: dataclasses.asdict(found)
                for split, found in metrics.items()
                if found is not None
            },
        }


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """How the models are trained, and where that is kept.

    Attributes:
      folder: of the run.
      clock: nothing trains on after its `TRAINING_ENDS`.
      task: see `Task`.
      rungs: the phases that the winner was trained in.
      windows: of each held-out split, that score.
      failed: told of a model that failed, and how.
    """

    folder: RunFolder
    clock: Clock
    task: Task
    rungs: Sequence[Rung]
    windows: int
    failed: Callable[[ArchitectureConfig, str], None]

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
        self, plan: Plan, models: Sequence[ArchitectureConfig], report: Report
    ) -> None:
        """`report` is told of their steps once no other training goes on."""
        self._plan, self._models, self._report = plan, models, report
        self._steps: Future[int] = Future()  # of the last training
        self._stop, self._alone = threading.Event(), threading.Event()
        self._begun = {model: threading.Event() for model in models}

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(max(1, len(self._models)))
        self._futures = [self._pool.submit(self._outcome, one) for one in self._models]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stop.set()
        self._steps.cancel()
        self._pool.shutdown(cancel_futures=True)

    def wait_until_begun(self, seconds: float | None = None) -> None:
        """Waits until all are compiled, and train; for so many seconds at most."""
        end = None if seconds is None else time.monotonic() + seconds
        for event in self._begun.values():
            event.wait(None if end is None else max(0.0, end - time.monotonic()))

    def train_on_for(self, steps: int) -> None:
        """Says for how many steps the winner trains on; the first word counts."""
        if not self._steps.done():
            self._steps.set_result(steps)

    def results(self) -> list[Baseline]:
        """Waits for them; in the models' order."""
        self._alone.set()
        return [future.result() for future in self._futures]

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
        planned = self._plan.rungs[-1].steps + self._steps.result()
        return Baseline(model, steps, planned, reason, sums)

    def _train(self, model: ArchitectureConfig) -> tuple[int, Params]:
        """Steps done, and the parameters they left."""
        plan, task, times = self._plan, self._plan.task, list[tuple[float, int]]()
        course, first = plan.first_course(), plan.rungs[-1].steps

        def report(done: int, total: int, loss: float) -> None:
            self._begun[model].set()
            times.append((time.monotonic(), done))
            if self._alone.is_set():
                self._report(done, total, loss)

        def part(course: Course, params: Params | None, *steps: int) -> TrainState:
            name, begun = plan.name(model, *steps), starting_state(model, task, params)
            with Checkpoints(plan.folder.finishing / name, keep=1) as checkpoints:
                state = train_saved(
                    model,
                    task,
                    begun,
                    course,
                    checkpoints,
                    time.monotonic,
                    report,
                    self._enough(name),
                )
            plan.clock.decide(name, int(state.step))  # also if a resume is late
            return state

        state = part(course, None)
        self._begun[model].set()  # an earlier process may have done all of it
        if int(state.step) < first:  # out of time
            return int(state.step), state.params
        more = self._last_steps(model, self._steps.result(), _seconds_of_a_step(times))
        if not more:
            return first, state.params
        state = part(last_course(task, more), state.params, more)
        return first + int(state.step), state.params

    def _last_steps(
        self, model: ArchitectureConfig, planned: int, a_step: float | None
    ) -> int:
        """As many as planned, or as there is time for."""
        clock = self._plan.clock
        if clock.budget is None:
            return planned
        left = clock.left(TRAINING_ENDS)
        fit = planned if a_step is None else int(max(0.0, left) / a_step)
        name = f"last steps of {self._plan.name(model)}"
        return clock.decide(name, min(planned, fit))

    def _enough(self, name: str) -> Callable[[int], bool]:
        """Whether a part of a training ends, by the clock or with the run."""
        clock = self._plan.clock

        def enough(done: int) -> bool:
            if self._stop.is_set():
                raise Stopped
            ended = clock.decided(name)
            if ended is None and clock.late(TRAINING_ENDS):
                ended = clock.decide(name, done)
            return ended is not None and done >= ended

        return enough


def _seconds_of_a_step(times: Sequence[tuple[float, int]]) -> float | None:
    """From the first call on, which compiled; None without a second one."""
    if len(times) < 2:
        return None
    (begin, before), (end, after) = times[0], times[-1]
    return (end - begin) / (after - before)
