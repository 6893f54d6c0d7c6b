"""The end of a run: the winner trains on, is scored and saved."""

import time
import traceback

import jax

from arch import ArchitectureConfig
from jaxnas.clock import Clock
from jaxnas.config import Settings
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.export.model_folder import save_model
from jaxnas.pipeline.budget import last_steps
from jaxnas.pipeline.winner import BestWeights, score_splits, train_on, training_name
from jaxnas.report.progress import Progress
from jaxnas.report.words import describe
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

    If training on fails, the winner is what the search found.
    """
    task = evaluator.task
    model = winner.config
    progress.say(f"winner: {winner.id}  {describe(model)}")
    params = best_weights.read(model, phase.rung)
    if params is None:
        progress.say("its weights were not kept: training them again first")
        params = evaluator.weights(model, progress.steps("winner again"), phase)
    reason = None
    try:
        steps = last_steps(config, clock, model, task, params)
        progress.say(f"the winner trains on for {steps} steps")
        part = folder.finishing / training_name(model, phase.rung, steps)
        with Checkpoints(part, keep=1) as checkpoints:
            report = progress.steps("winner")
            trained = train_on(
                model, task, params, steps, checkpoints, time.monotonic, report
            )
        splits = score_splits(model, task, trained, config.final_windows)
    except (TrainingFailed, jax.errors.JaxRuntimeError) as error:
        log_failure(folder, model, traceback.format_exc())
        steps, reason = 0, f"training on failed: {error}".splitlines()[0]
        progress.say(f"{reason}; the winner stays as the search trained it")
        trained = params
        splits = score_splits(model, task, trained, config.final_windows)
    save_model(folder.model, model, trained, task.dataset.tokenizer)
    return {"steps": steps, "reason": reason, "splits": splits}


def log_failure(folder: RunFolder, config: ArchitectureConfig, trace: str) -> None:
    """Keeps the traceback of a candidate that failed."""
    with folder.failures.open("a") as file:
        file.write(f"{describe(config)}\n{trace}\n")
