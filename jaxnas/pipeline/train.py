"""One model trained for long, on a corpus of one's own: from its weights, or anew."""

import dataclasses
import math
import time
from pathlib import Path

from rich.console import Console

from arch import ArchitectureConfig, Params, build_model
from arch.initial import draw_parameters
from jaxnas.clock import SPENT_EVERY, Clock, seconds_of
from jaxnas.data import Dataset, prepare
from jaxnas.data.fim import fim_tokens, with_fim
from jaxnas.errors import RunFailed
from jaxnas.export.model_folder import (
    LoadedModel,
    load_codes,
    load_model,
    save_model,
)
from jaxnas.export.tokens import keep_tokens
from jaxnas.pipeline.corpus_task import check_positions, keep_facts, shared_task
from jaxnas.pipeline.last_end import Fixed, Moving
from jaxnas.pipeline.last_steps import steps_in_time
from jaxnas.pipeline.train_plan import Trained, TrainPlan
from jaxnas.pipeline.train_watch import TrainWatch
from jaxnas.pipeline.train_words import TrainWords
from jaxnas.pipeline.winner import score_splits, sums_of_splits, train_on
from jaxnas.report.steps import steps_shown
from jaxnas.report.tracking import Tracker
from jaxnas.results.summary import SplitScores
from jaxnas.runtime import set_up
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.files import write_json
from jaxnas.storage.jsonl import Json, Lines
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.devices import Devices
from jaxnas.training.scoring import WindowSums
from jaxnas.training.settings import LAST_DECAY, TrainSettings
from jaxnas.training.single import TrainingFailed
from jaxnas.training.task import Task

ENDS = 0.97  # of a budget, by which training ends
LONGER = 2  # times the steps that were planned, that they may become


def train(
    folder: RunFolder,
    plan: TrainPlan,
    console: Console,
    began: float,
    tracker: Tracker | None = None,
    devices: Devices | None = None,
) -> dict[str, SplitScores]:
    """Trains, saves the model of the best evaluation, and scores it.

    What was done before in the folder is gone on with.

    Args:
      folder: locked.
      plan: see `TrainPlan`.
      console: to print to.
      began: when the process did, by `time.monotonic`.
      tracker: told the figures of each evaluation, as "training".
      devices: that share each batch; all of this host's by default.

    Returns:
      The scores of the held-out splits.

    Raises:
      UsageError: the plan does not fit the model, its data or the folder.
      RunFailed: the training ended without a usable model.
    """
    set_up()
    model = load_model(plan.model)
    config = _long_enough(model.config, plan)
    tokenizer = with_fim(model.tokenizer) if plan.fim else model.tokenizer
    dataset = prepare(plan.data, config.vocab_size, tokenizer=tokenizer)
    task = make_task(plan, dataset, devices)
    keep_facts(folder, dataset)
    trained_on = _rearranged(plan, task)
    budget = None if plan.budget is None else seconds_of(plan.budget)
    clock = Clock(budget, folder.budget, began)
    begin = time.monotonic()
    number = plan.final_windows
    before = sums_of_splits(model.config, task, model.params, number, stored=True)
    clock.reserve(time.monotonic() - begin)  # as long again for the trained one
    words = TrainWords(console, plan, config, clock, tracker, task.devices)
    words.begin(dataset, before)
    try:
        trained = _trained(folder, plan, config, model, trained_on, clock, words)
    except TrainingFailed as error:
        raise RunFailed(f"{error}: a lower --learning-rate may help") from None
    kept = trained.best_step == 0 and not plan.fresh  # then as it was rounded
    codes = load_codes(plan.model) if kept else None
    exact = kept and config.quantization == "fp16"  # an import may be wider
    save_model(folder.model, config, trained.params, tokenizer, exact, codes)
    keep_tokens(Path(plan.model), folder.model)
    after = sums_of_splits(config, task, trained.params, number, stored=kept)
    scores = score_splits(task, after, number)
    write_json(folder.summary, _summary(plan, trained, scores, before))
    words.end(trained, scores, before, folder)
    return scores


def _summary(
    plan: TrainPlan,
    trained: Trained,
    scores: dict[str, SplitScores],
    before: dict[str, WindowSums],
) -> Json:
    """What is kept of a training."""
    return {
        "steps": trained.steps,
        "tokens": trained.steps * plan.tokens_a_step,
        "best_step": trained.best_step,
        "splits": scores,
        "before": {
            split: dataclasses.asdict(found)
            for split, sums in before.items()
            if (found := sums.metrics()) is not None
        },
    }


def make_task(
    plan: TrainPlan, dataset: Dataset, devices: Devices | None = None
) -> Task:
    """The corpus and the settings of a plan."""
    settings = TrainSettings(
        window=plan.window,
        batch=plan.batch,
        accumulate=plan.accumulate,
        learning_rate=plan.learning_rate,
        optimizer=plan.optimizer,
    )
    return shared_task(dataset, settings, plan.seed, devices)


def _rearranged(plan: TrainPlan, task: Task) -> Task:
    """The task with a share of its training pieces rearranged, if that is wanted.

    Pieces have half a window: most windows hold a whole one.
    """
    if not plan.fim:
        return task
    dataset, length = task.dataset, max(8, plan.window // 2)
    stream = fim_tokens(dataset.train, dataset.tokenizer, plan.fim, length, plan.seed)
    return dataclasses.replace(task, dataset=dataclasses.replace(dataset, train=stream))


def _long_enough(config: ArchitectureConfig, plan: TrainPlan) -> ArchitectureConfig:
    """The model for windows of this length, as it will be stored."""
    if not plan.fresh:
        check_positions(config, plan.window, plan.model, ": --fresh begins anew")
    longest = max(config.max_seq_length, plan.window)
    stored = plan.quantization or config.quantization
    return dataclasses.replace(config, max_seq_length=longest, quantization=stored)


def _trained(
    folder: RunFolder,
    plan: TrainPlan,
    config: ArchitectureConfig,
    model: LoadedModel,
    task: Task,
    clock: Clock,
    words: TrainWords,
) -> Trained:
    params = model.params
    if plan.fresh:
        params = draw_parameters(build_model(config), task.key("parameters"))
    end = _end(plan, config, task, params, clock)
    words.steps(end.steps)
    checkpoints = Checkpoints(folder.finishing, keep=1)
    with (
        Lines(folder.curve) as curve,
        steps_shown(words.console, "training") as show,
    ):
        watch = TrainWatch(folder.best_weights, plan, config, task, curve, words)
        if not plan.fresh:  # the training may make them worse
            watch.evaluate(0, params, stored=True)

        def report(done: int, total: int, loss: float) -> None:
            watch.loss = loss
            clock.save(SPENT_EVERY)  # a resume has the rest
            words.now(done, total)
            show(done, total, loss)

        done, last = train_on(
            config,
            task,
            params,
            end,
            checkpoints,
            time.monotonic,
            report,
            watch,
            decay=LAST_DECAY,
            warmup=None,
        )
        watch.evaluate(done, last)
        return Trained(done, *watch.best())


def _end(
    plan: TrainPlan,
    config: ArchitectureConfig,
    task: Task,
    params: Params,
    clock: Clock,
) -> Fixed | Moving:
    if plan.tokens is not None:
        return Fixed(max(1, math.ceil(plan.tokens / plan.tokens_a_step)))
    steps = max(1, steps_in_time(clock, ENDS, config, task, params))
    most = LONGER * steps
    return Moving(clock, "final_steps", steps, most, ends=ENDS)
