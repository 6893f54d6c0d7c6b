"""The end of a run: the winner trains on, is scored and saved."""

import contextlib
import dataclasses
import functools
import time
import traceback
from typing import NamedTuple

import jax

from arch import ArchitectureConfig, Params
from jaxnas.clock import SPENT_EVERY, TRAINING_ENDS, Clock
from jaxnas.config import Settings
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.export.model_folder import save_model
from jaxnas.pipeline.beside import NO_TIME, Baseline, BaselinePlan, Beside
from jaxnas.pipeline.last_end import Fixed, last_end
from jaxnas.pipeline.last_steps import last_steps, last_steps_ahead
from jaxnas.pipeline.obvious import Limits, choose_obvious
from jaxnas.pipeline.room import room_beside
from jaxnas.pipeline.winner import (
    HELD_OUT,
    BestWeights,
    score_splits,
    sums_of_splits,
    train_on,
    training_name,
)
from jaxnas.report.progress import Progress
from jaxnas.report.quality import shape_words
from jaxnas.report.words import describe
from jaxnas.results.gain import best_gain
from jaxnas.results.result import Scored
from jaxnas.results.summary import Final
from jaxnas.storage import disk
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.phase import Phase
from jaxnas.training.scoring import WindowSums, score_windows
from jaxnas.training.single import TrainingFailed
from jaxnas.wording import counted

_REST = 0.02  # of a budget, for what comes after the last scores


def finish(
    folder: RunFolder,
    config: Settings,
    clock: Clock,
    evaluator: Evaluator,
    phase: Phase,
    winner: Scored,
    best_weights: BestWeights,
    progress: Progress,
) -> Final:
    """Trains the winner on, saves it, and scores it on the held-out splits.

    If training on fails, the winner is what the search found. Obvious models train
    beside it, if they are asked for: what becomes of them changes nothing for it.
    """
    model = winner.config
    progress.say(f"winner: {winner.id}  {describe(model)}")
    params = best_weights.read(model, phase.rung)
    if params is None:
        progress.say("its weights were not kept: training them again first")
        params = evaluator.weights(model, progress.steps("winner again"), phase)
    ending = Ending(
        folder=folder,
        config=config,
        clock=clock,
        evaluator=evaluator,
        phase=phase,
        model=model,
        params=params,
        progress=progress,
    )
    obvious = ending.obvious()
    others = ending.in_time(obvious)
    with Beside(ending.plan(), others, progress.steps("obvious model")) as beside:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # no memory beside them
            ending.keep_time_to_score(1 + len(others))
        last = ending.last_training(beside, alone=not others)
        save_model(folder.model, model, last.params, evaluator.task.dataset.tokenizer)
        splits = score_splits(evaluator.task, last.sums, config.final_windows)
        found = {one.config: one for one in beside.results()}
    planned = evaluator.trainer.rungs[phase.rung].steps + last.steps
    baselines = [found.get(one) or Baseline(one, 0, NO_TIME, {}) for one in obvious]
    return {
        "steps": last.steps,
        "reason": last.reason,
        "splits": splits,
        "baseline": [one.to_summary(planned) for one in baselines],
        "gain": best_gain(last.sums, [one.sums for one in baselines]),
    }


class Last(NamedTuple):
    """What the winner's last training left."""

    steps: int
    reason: str | None  # why there were none
    params: Params
    sums: dict[str, WindowSums]  # by held-out split


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Ending:
    """The winner, `model`, as the search left it, and what it is finished with."""

    folder: RunFolder
    config: Settings
    clock: Clock
    evaluator: Evaluator
    phase: Phase
    model: ArchitectureConfig
    params: Params
    progress: Progress

    def plan(self) -> BaselinePlan:
        """How others are trained as the winner is."""
        return BaselinePlan(
            folder=self.folder,
            clock=self.clock,
            task=self.evaluator.task,
            rungs=self.evaluator.trainer.rungs[: self.phase.rung + 1],
            windows=self.config.final_windows,
            failed=functools.partial(log_failure, self.folder),
            at_once=self._at_once(),
        )

    def _at_once(self) -> int | None:
        """Models that train beside the winner at a time: it has a core of its own.

        Where the clock ends them all, they all begin with the winner.
        """
        if self.clock.budget is not None:
            return None
        return max(1, self.evaluator.trainer.machine.cores - 1)

    def obvious(self) -> list[ArchitectureConfig]:
        """The obvious models to compare the winner with; says which, and why."""
        if not self.config.baseline:
            return []
        trainer, settings = self.evaluator.trainer, self.evaluator.task.settings
        steps = trainer.rungs[self.phase.rung].steps
        steps += last_steps_ahead(self.config, self.clock, trainer, self.model)
        limits = Limits.of(self.config, self.model, self.evaluator.fits)
        tokens = steps * settings.batch * settings.window
        models, why = choose_obvious(limits, tokens, self.model)
        self.progress.say(f"beside it    {why}")
        return models

    def in_time(self, models: list[ArchitectureConfig]) -> list[ArchitectureConfig]:
        """Those that there is time for; says which are left out."""
        room = room_beside(self.clock, self.evaluator.trainer, models, self.phase)
        for left_out in models:
            if left_out not in room:
                self.progress.say(f"there is no time for {shape_words(left_out)}")
        return room

    def keep_time_to_score(self, models: int) -> None:
        """Reserves the time that scoring so many models takes, as it is measured."""
        clock, task = self.clock, self.evaluator.task
        if clock.budget is None or clock.late(TRAINING_ENDS):
            return
        taken = []  # compiled for the first split, run for both
        for split in HELD_OUT:
            begin = time.monotonic()
            windows = task.windows(split, self.config.final_windows)
            score_windows(self.model, task, self.params, windows)
            taken.append(time.monotonic() - begin)
        first, again = taken
        clock.reserve(_REST * clock.budget + 2 * again + (models - 1) * (first + again))

    def last_training(self, beside: Beside, alone: bool) -> Last:
        """Trains the winner on; if that fails, it stays as it was."""
        try:
            try:
                return self._train_on(beside)
            except jax.errors.JaxRuntimeError:
                if alone:
                    raise
                beside.train_on_until(Fixed(self.config.final_steps))
                beside.results()  # after which it has the memory for itself
                return self._train_on(beside)
        except (TrainingFailed, jax.errors.JaxRuntimeError) as error:
            log_failure(self.folder, self.model, traceback.format_exc())
            reason = f"training on failed: {error}".splitlines()[0]
            self.progress.say(f"{reason}; the winner stays as the search trained it")
            beside.train_on_until(Fixed(0))
            return Last(0, reason, self.params, self._sums(self.params))

    def _train_on(self, beside: Beside) -> Last:
        model, task, params = self.model, self.evaluator.task, self.params
        ready = beside.wait_until_begun
        steps = last_steps(self.config, self.clock, model, task, params, ready)
        how = f"trains on for {counted(steps, 'step')}" if steps else "stays as it is"
        self.progress.say(f"the winner {how}")
        end = last_end(self.config, self.clock, steps)
        beside.train_on_until(end)
        part = self.folder.finishing / training_name(model, self.phase.rung, steps)
        checkpoints = Checkpoints(part, keep=1)
        show = self.progress.steps("winner")

        def report(done: int, total: int, loss: float) -> None:
            self.clock.save(SPENT_EVERY)  # a resume has the rest
            show(done, total, loss)

        done, trained = train_on(
            model, task, params, end, checkpoints, time.monotonic, report
        )
        if done != steps:
            self.progress.say(f"the clock ends it after {done} steps instead")
        return Last(done, None, trained, self._sums(trained))

    def _sums(self, params: Params) -> dict[str, WindowSums]:
        windows = self.config.final_windows
        return sums_of_splits(self.model, self.evaluator.task, params, windows)


def log_failure(folder: RunFolder, config: ArchitectureConfig, trace: str) -> None:
    """Keeps the traceback of a candidate that failed."""
    with disk.open_file(folder.failures, "ab") as file:
        disk.write(file, f"{describe(config)}\n{trace}\n".encode())
