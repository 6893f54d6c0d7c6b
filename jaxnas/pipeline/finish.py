"""The end of a run: the winner trains on, is scored and saved."""

import functools
import time
import traceback
from collections.abc import Callable

import jax

from arch import ArchitectureConfig, Params
from jaxnas.clock import Clock
from jaxnas.config import Settings
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.export.model_folder import save_model
from jaxnas.pipeline.beside import Beside, Plan
from jaxnas.pipeline.budget import last_steps, last_steps_ahead, room_beside
from jaxnas.pipeline.obvious import Limits, choose_obvious
from jaxnas.pipeline.winner import (
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
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.phase import Phase
from jaxnas.training.single import TrainingFailed


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
    task = evaluator.task
    model = winner.config
    progress.say(f"winner: {winner.id}  {describe(model)}")
    params = best_weights.read(model, phase.rung)
    if params is None:
        progress.say("its weights were not kept: training them again first")
        params = evaluator.weights(model, progress.steps("winner again"), phase)
    reason = None
    others = _obvious(config, clock, evaluator, phase, model, progress.say)
    plan = Plan(
        folder=folder,
        clock=clock,
        task=task,
        rungs=evaluator.trainer.rungs[: phase.rung + 1],
        windows=config.final_windows,
        failed=functools.partial(log_failure, folder),
    )
    with Beside(plan, others, progress.steps("obvious model")) as beside:

        def last_training() -> tuple[int, Params]:
            steps = last_steps(config, clock, model, task, params)
            progress.say(f"the winner trains on for {steps} steps")
            beside.train_on_for(steps)
            part = folder.finishing / training_name(model, phase.rung, steps)
            with Checkpoints(part, keep=1) as checkpoints:
                report = progress.steps("winner")
                return steps, train_on(
                    model, task, params, steps, checkpoints, time.monotonic, report
                )

        try:
            if clock.budget is not None:  # a step is measured as it will take
                beside.wait_until_begun()
            try:
                steps, trained = last_training()
            except jax.errors.JaxRuntimeError:
                if not others:
                    raise
                beside.train_on_for(config.final_steps)
                beside.results()  # after which it has the memory alone
                steps, trained = last_training()
            sums = sums_of_splits(model, task, trained, config.final_windows)
        except (TrainingFailed, jax.errors.JaxRuntimeError) as error:
            log_failure(folder, model, traceback.format_exc())
            steps, reason = 0, f"training on failed: {error}".splitlines()[0]
            progress.say(f"{reason}; the winner stays as the search trained it")
            beside.train_on_for(steps)
            trained = params
            sums = sums_of_splits(model, task, trained, config.final_windows)
        save_model(folder.model, model, trained, task.dataset.tokenizer)
        splits = score_splits(task, sums, config.final_windows)
        baselines = beside.results()
    for one in baselines:
        if one.reason is not None:
            progress.say(f"the obvious model {shape_words(one.config)}: {one.reason}")
    return {
        "steps": steps,
        "reason": reason,
        "splits": splits,
        "baseline": [one.to_summary() for one in baselines],
        "gain": best_gain(sums, [one.sums for one in baselines]),
    }


def _obvious(
    config: Settings,
    clock: Clock,
    evaluator: Evaluator,
    phase: Phase,
    winner: ArchitectureConfig,
    say: Callable[[str], None],
) -> list[ArchitectureConfig]:
    """The obvious models to train beside the winner; says which, and why."""
    if not config.baseline:
        return []
    trainer, settings = evaluator.trainer, evaluator.task.settings
    steps = trainer.rungs[phase.rung].steps
    steps += last_steps_ahead(config, clock, trainer, winner)
    limits = Limits.of(config, winner, evaluator.fits)
    tokens = steps * settings.batch * settings.window
    models, why = choose_obvious(limits, tokens, winner)
    say(f"obvious models (Llama-like) train beside it: {why}")
    room = room_beside(clock, trainer, models, phase)
    if len(room) < len(models):
        left_out = ", ".join(map(shape_words, models[len(room) :]))
        say(f"there is no time for {left_out}")
    return room


def log_failure(folder: RunFolder, config: ArchitectureConfig, trace: str) -> None:
    """Keeps the traceback of a candidate that failed."""
    with folder.failures.open("a") as file:
        file.write(f"{describe(config)}\n{trace}\n")
