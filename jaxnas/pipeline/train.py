"""One model trained for long, on a corpus of one's own: from its weights, or anew."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from arch import ArchitectureConfig, Params, build_model
from arch.cost import training_flops
from arch.decoding.generate import position_limit
from arch.initial import draw_parameters
from jaxnas.clock import Clock, clock_words, seconds_of
from jaxnas.data import Dataset, prepare
from jaxnas.data.fim import fim_tokens, with_fim
from jaxnas.errors import RunFailed, UsageError
from jaxnas.export.model_folder import (
    LoadedModel,
    load_codes,
    load_model,
    read_arrays,
    save_model,
    write_arrays,
)
from jaxnas.export.tokens import keep_tokens
from jaxnas.pipeline.build import check_window
from jaxnas.pipeline.manifest import versions
from jaxnas.pipeline.room import Fixed, Moving, steps_in_time
from jaxnas.pipeline.winner import score_splits, sums_of_splits, train_on
from jaxnas.report.steps import steps_shown
from jaxnas.report.tables import add_numbers, plain_table
from jaxnas.report.tracking import Tracker
from jaxnas.results.gain import quality
from jaxnas.results.summary import SplitScores
from jaxnas.runtime import batch_mesh, compute_dtype, set_up
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.files import write_json
from jaxnas.storage.inputs import read_json
from jaxnas.storage.jsonl import Json, Lines
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.scoring import WindowSums, score_windows
from jaxnas.training.settings import LAST_DECAY, TrainSettings
from jaxnas.training.single import TrainingFailed
from jaxnas.training.task import Task

ENDS = 0.97  # of a budget, by which training ends
SPENT_EVERY = 5.0  # seconds, after which it is written down what is spent
LONGER = 2  # times the steps that were planned, that they may become


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

    @property
    def tokens_a_step(self) -> int:
        """Of all samples."""
        return self.window * self.batch


class Trained(NamedTuple):
    """What a training left: the best of its evaluations."""

    steps: int
    best_step: int
    params: Params


def train(
    folder: RunFolder,
    plan: TrainPlan,
    console: Console,
    began: float,
    tracker: Tracker | None = None,
) -> dict[str, SplitScores]:
    """Trains, saves the model of the best evaluation, and scores it.

    What was done before in the folder is gone on with.

    Args:
      folder: locked.
      plan: see `TrainPlan`.
      console: to print to.
      began: when the process did, by `time.monotonic`.
      tracker: told the figures of each evaluation, as "training".

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
    task = make_task(plan, dataset)
    keep_facts(folder, dataset)
    trained_on = _rearranged(plan, task)
    budget = None if plan.budget is None else seconds_of(plan.budget)
    clock = Clock(budget, folder.budget, began)
    begin = time.monotonic()
    before = sums_of_splits(config, task, model.params, plan.final_windows)
    clock.reserve(time.monotonic() - begin)  # as long again for the trained one
    words = _Words(console, plan, config, clock, tracker)
    words.begin(dataset, before)
    try:
        trained = _trained(folder, plan, config, model, trained_on, clock, words)
    except TrainingFailed as error:
        raise RunFailed(f"{error}: a lower --learning-rate may help") from None
    kept = trained.best_step == 0 and not plan.fresh  # then as it was rounded
    codes = load_codes(plan.model) if kept else None
    save_model(folder.model, config, trained.params, tokenizer, codes=codes)
    keep_tokens(Path(plan.model), folder.model)
    after = sums_of_splits(config, task, trained.params, plan.final_windows)
    scores = score_splits(task, after, plan.final_windows)
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


def make_task(plan: TrainPlan, dataset: Dataset) -> Task:
    """The corpus and the settings of a plan."""
    settings = TrainSettings(
        window=plan.window,
        batch=plan.batch,
        accumulate=plan.accumulate,
        learning_rate=plan.learning_rate,
        optimizer=plan.optimizer,
    )
    return shared_task(dataset, settings, plan.seed)


def shared_task(dataset: Dataset, settings: TrainSettings, seed: int) -> Task:
    """A task whose batches are shared by all local devices.

    Raises:
      UsageError: they do not split, or the corpus holds no whole window.
    """
    devices = jax.local_devices()
    part = settings.batch // settings.accumulate
    if part % len(devices):
        raise UsageError(
            f"--batch {settings.batch} in {settings.accumulate} parts does not split "
            f"among {len(devices)} devices"
        )
    check_window(settings.window, dataset)
    return Task(
        dataset=dataset,
        settings=settings,
        seed=seed,
        dtype=compute_dtype(),
        mesh=batch_mesh(),
    )


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
    """The model for windows of this length."""
    limit = position_limit(config)
    if limit is not None and plan.window > limit and not plan.fresh:
        raise UsageError(
            f"--window {plan.window} is longer than the {limit} tokens that the "
            f"positions of {plan.model} were trained for: --fresh begins anew"
        )
    longest = max(config.max_seq_length, plan.window)
    return dataclasses.replace(config, max_seq_length=longest)


def keep_facts(folder: RunFolder, dataset: Dataset) -> None:
    """Writes what it is trained on and with; refuses to go on with other data."""
    facts = dataset.describe()
    if not folder.manifest.exists():
        write_json(folder.manifest, {**versions(), "data": facts})
        return
    try:
        known = read_json(folder.manifest)["data"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{folder.manifest} is damaged: it is no manifest") from None
    for name in ("corpus_hash", "tokenizer_hash"):
        if known.get(name) != facts[name]:
            raise UsageError(
                f"{folder.path} was begun with other data: the {name} of "
                f"{dataset.spec} has changed"
            )


def _trained(
    folder: RunFolder,
    plan: TrainPlan,
    config: ArchitectureConfig,
    model: LoadedModel,
    task: Task,
    clock: Clock,
    words: "_Words",
) -> Trained:
    params = model.params
    if plan.fresh:
        params = draw_parameters(build_model(config), task.key("parameters"))
    end = _end(plan, config, task, params, clock)
    words.steps(end.steps)
    with (
        Lines(folder.curve) as curve,
        Checkpoints(folder.finishing, keep=1) as checkpoints,
        steps_shown(words.console, "training") as show,
    ):
        watch = _Watch(folder.best_weights, plan, config, task, curve, words)
        if not plan.fresh:  # the training may make them worse
            watch.evaluate(0, params)

        saved = time.monotonic()

        def report(done: int, total: int, loss: float) -> None:
            nonlocal saved
            watch.loss = loss
            if time.monotonic() - saved > SPENT_EVERY:  # a resume has the rest
                clock.save()
                saved = time.monotonic()
            words.now(done, total)
            show(done, total, loss)

        done, last = train_on(
            config, task, params, end, checkpoints, time.monotonic, report, watch
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
    return Moving(clock, "final_steps", steps, most, LAST_DECAY, ends=ENDS)


class _Watch:
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
        words: "_Words",
    ) -> None:
        self.loss: float | None = None
        self._best, self._plan, self._curve, self._words = best, plan, curve, words
        self._windows = task.windows("validation", plan.eval_windows)
        self._score: Callable[[Params], WindowSums] = lambda params: score_windows(
            config, task, params, self._windows
        )
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

    def evaluate(self, done: int, params: Params) -> None:
        """Adds a line to the curve, unless the step has one."""
        if any(line["step"] == done for line in list(self._curve)):
            return
        metrics = self._score(params).metrics()
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


class _Words:
    """What is said while a model trains."""

    def __init__(
        self,
        console: Console,
        plan: TrainPlan,
        config: ArchitectureConfig,
        clock: Clock,
        tracker: Tracker | None,
    ) -> None:
        self.console, self._plan, self._clock = console, plan, clock
        self._tracker = tracker
        self._flops = training_flops(config, plan.batch, plan.window)
        self._first: tuple[int, float] | None = None
        self._done = self._total = 0

    def begin(self, dataset: Dataset, before: dict[str, WindowSums]) -> None:
        """The corpus, and what the model is worth there."""
        facts, tokens = dataset.statistics, len(dataset.train)
        self._say(
            f"data         {dataset.spec}: {facts['bytes'] / 1e6:.1f} MB in "
            f"{facts['files_kept']} files, {tokens:,} training tokens"
        )
        found = before["validation"].metrics()
        start = "untrained weights" if self._plan.fresh else "its weights"
        has = "" if found is None else f" ({found.bits_per_byte:.3f} bits/byte here)"
        self._say(f"model        {self._plan.model}, from {start}{has}")
        if self._plan.fim:
            share = f"{self._plan.fim:.0%} of the pieces of files"
            self._say(f"rearranged   {share}, to fill in the middle")

    def steps(self, number: int) -> None:
        """How long the training is."""
        tokens = number * self._plan.tokens_a_step
        parts = self._plan.accumulate
        accumulated = f" in {parts} parts" if parts > 1 else ""
        until = "" if self._plan.budget is None else f" (budget {self._plan.budget})"
        self._say(
            f"training     {number:,} steps of {self._plan.batch} x "
            f"{self._plan.window} tokens{accumulated}, {tokens:,} in all{until}, "
            f"on {jax.local_device_count()} x {jax.devices()[0].device_kind}"
        )

    def now(self, done: int, total: int) -> None:
        """Steps done, and in all."""
        self._done, self._total = done, total
        if self._first is None:
            self._first = done, time.monotonic()

    def evaluated(self, line: Json) -> None:
        """An evaluation, with the speed since the first call."""
        if self._tracker is not None:
            known = {name: x for name, x in line.items() if x is not None}
            self._tracker("training", known.pop("step"), known)
        loss = "" if line["loss"] is None else f"  loss {line['loss']:.3f}"
        speed = left = ""
        first, began = self._first or (0, 0.0)
        if self._done > first:
            a_step = (time.monotonic() - began) / (self._done - first)
            speed = (
                f"  {self._plan.tokens_a_step / a_step:,.0f} tokens/s  "
                f"{self._flops / a_step / 1e12:.3g} TFLOP/s"
            )
            left = f"  {clock_words(a_step * (self._total - self._done))} left"
        self._say(
            f"step {line['step']:>7,}{loss:12}  validation "
            f"{line['bits_per_byte']:.4f} bits/byte  accuracy "
            f"{line['accuracy']:.4f}{speed}{left}"
        )

    def end(
        self,
        trained: Trained,
        scores: dict[str, SplitScores],
        before: dict[str, WindowSums],
        folder: RunFolder,
    ) -> None:
        """The table of quality, and where the model is."""
        table = plain_table("Next-token quality", "split", "model")
        add_numbers(table, "bits/byte", "accuracy")
        for split, one in scores.items():
            was = before[split].metrics()
            rows = [("token unigram", one["unigram"]), ("token bigram", one["bigram"])]
            if was is not None:
                rows.append(("as it was", quality(dataclasses.asdict(was))))
            for name, found in [*rows, ("trained", one["winner"])]:
                figures = f"{found['bits_per_byte']:.3f}", f"{found['accuracy']:.4f}"
                table.add_row(split, name, *figures)
        self.console.print(table)
        if trained.best_step == 0:
            self._say(
                "warning: the training has not made the model better, and it stays as "
                "it was: more --tokens, or a lower --learning-rate"
            )
        elif trained.best_step < trained.steps:
            self._say(
                f"the best weights were those of step {trained.best_step:,} of "
                f"{trained.steps:,}"
            )
        if scores["test"]["winner"]["bits_per_byte"] > (
            bigram := scores["test"]["bigram"]["bits_per_byte"]
        ):
            self._say(f"warning: the model loses to the token bigram ({bigram:.3f})")
        self._say(f"model       {folder.model}")
        self._say(f"curve       {folder.curve}")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)
