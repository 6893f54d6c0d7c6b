"""A small model trained on the files, and on what a larger one expects of them."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike
from rich.console import Console

from arch import ArchitectureConfig, Params, build_model
from arch.cost import MIB, size_bytes
from arch.initial import draw_parameters
from jaxnas.clock import SPENT_EVERY, Clock, seconds_of
from jaxnas.data import prepare
from jaxnas.data.tokenizer import id_type
from jaxnas.errors import RunFailed, UsageError
from jaxnas.export.model_folder import LoadedModel, load_model, save_model
from jaxnas.export.tokens import keep_tokens
from jaxnas.pipeline.corpus_task import check_positions, keep_facts, shared_task
from jaxnas.pipeline.last_end import enough_by
from jaxnas.pipeline.last_steps import seconds_of_a_step
from jaxnas.pipeline.train import ENDS
from jaxnas.pipeline.winner import HELD_OUT, Course, train_saved
from jaxnas.report.steps import steps_shown
from jaxnas.report.tables import add_numbers, plain_table
from jaxnas.report.tracking import Tracker
from jaxnas.runtime import set_up
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.files import write_json
from jaxnas.storage.inputs import read_json, read_text
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.distillation import Lesson, top_expected
from jaxnas.training.loop import Schedule, TrainState, logits_of
from jaxnas.training.scoring import WindowSums, score_stored, score_windows
from jaxnas.training.settings import LAST_DECAY, TrainSettings
from jaxnas.training.single import TrainingFailed, starting_state
from jaxnas.training.task import Task

READ_AT_ONCE = 16  # windows
MEASURED = 4  # calls of the teacher, to know how long it takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilPlan:
    """What `distil` was asked for.

    Attributes:
      teacher: folder of the model to learn from.
      student: folder of the model that learns, or a config, *.json.
      data: source of the corpus.
      fresh: whether a model begins from untrained weights; a config always does.
      tokens: to train on, None if the budget decides.
      budget: time that all of it may take, the teacher's reading included.
      share: of the loss that is the distance to what the teacher expects.
      top: tokens that are stored of what it expects at each place.
      stored: tokens that it reads at most; more steps see them again.
      window: tokens a sample.
      batch: samples a step.
      learning_rate: the schedule's peak.
      final_windows: of each held-out split, in the end.
      seed: of windows and weights.
    """

    teacher: str
    student: str
    data: str
    fresh: bool
    tokens: int | None
    budget: str | None
    share: float
    top: int
    stored: int
    window: int
    batch: int
    learning_rate: float
    final_windows: int
    seed: int


class Student(NamedTuple):
    """What learns, before it does."""

    config: ArchitectureConfig
    params: Params | None  # None: untrained


def distil(
    folder: RunFolder,
    plan: DistilPlan,
    console: Console,
    began: float,
    tracker: Tracker | None = None,
) -> dict[str, dict[str, float]]:
    """Reads with the teacher, trains the student, saves and scores it.

    What was done before in the folder is gone on with.

    Args:
      folder: locked.
      plan: see `DistilPlan`.
      console: to print to.
      began: when the process did, by `time.monotonic`.
      tracker: told the loss as it falls, as "training".

    Returns:
      Bits/byte of each model by split.

    Raises:
      UsageError: the models do not share a tokenizer, or the plan does not fit them.
      RunFailed: the training diverged.
    """
    set_up()
    teacher = load_model(plan.teacher)
    student = read_student(plan, teacher)
    config = student.config
    dataset = prepare(plan.data, config.vocab_size, tokenizer=teacher.tokenizer)
    settings = TrainSettings(
        window=plan.window,
        batch=plan.batch,
        learning_rate=plan.learning_rate,
        decay_share=LAST_DECAY,
        teaching=plan.share,
    )
    task = shared_task(dataset, settings, plan.seed)
    keep_facts(folder, dataset)
    budget = None if plan.budget is None else seconds_of(plan.budget)
    clock = Clock(budget, folder.budget, began)
    begin = time.monotonic()
    before = _scores_before(plan, task, teacher, student)
    clock.reserve(time.monotonic() - begin)  # as long again for the trained one
    params = student.params
    if params is None:
        params = draw_parameters(build_model(config), task.key("parameters"))
    steps = _steps(plan, clock, teacher, task, config, params)
    lesson, order = read_lesson(folder.path / "teacher", plan, teacher, task, steps)
    taught = dataclasses.replace(task, lesson=lesson)
    order = order[: _left(clock, taught, config, params, steps)]
    console.print(
        f"teacher      {len(lesson.tokens):,} tokens read, {plan.top} stored of each; "
        f"training {len(order):,} steps of {plan.batch} x {plan.window} tokens",
        soft_wrap=True,
    )
    last = _trained(folder, taught, config, params, order, clock, console, tracker)
    done, trained = int(last.step), last.params
    if done < len(order):
        console.print(f"the clock ends it after {done:,} steps")
    save_model(folder.model, config, trained, teacher.tokenizer)
    keep_tokens(Path(plan.teacher), folder.model)
    score = functools.partial(score_windows, config, task, trained)
    scores = before | {"student": _bits("student", plan, task, score)}
    write_json(folder.summary, {"steps": done, "bits_per_byte": scores})
    _show(console, scores, teacher.config, config)
    console.print(f"model       {folder.model}", soft_wrap=True)
    return scores


def read_student(plan: DistilPlan, teacher: LoadedModel) -> Student:
    """The student, which shares the teacher's tokenizer.

    Raises:
      UsageError: it does not, or it cannot be read.
    """
    path = Path(plan.student)
    if path.suffix == ".json":
        try:
            config = ArchitectureConfig.from_json(read_text(path))
        except ValueError as error:
            raise UsageError(f"cannot read a config from {path}: {error}") from None
        params, fresh = None, True
    else:
        model = load_model(path)
        if model.tokenizer.to_str() != teacher.tokenizer.to_str():
            raise UsageError(
                f"{plan.teacher} and {path} have different tokenizers: a student "
                f"learns from a teacher that reads the same tokens. A config (*.json) "
                f"as the student takes the teacher's"
            )
        config, params, fresh = model.config, model.params, plan.fresh
    if config.vocab_size != teacher.config.vocab_size:
        raise UsageError(
            f"the student's vocab_size={config.vocab_size} is not the teacher's "
            f"{teacher.config.vocab_size}: they need the same tokens"
        )
    if plan.top > config.vocab_size:
        raise UsageError(
            f"--top {plan.top} is more than the {config.vocab_size} tokens there are"
        )
    check_positions(teacher.config, plan.window, "the teacher")
    if not fresh:
        check_positions(config, plan.window, "the student")
    longest = max(config.max_seq_length, plan.window)
    config = dataclasses.replace(config, max_seq_length=longest)
    return Student(config, None if fresh else params)


def _steps(
    plan: DistilPlan,
    clock: Clock,
    teacher: LoadedModel,
    task: Task,
    config: ArchitectureConfig,
    params: Params,
) -> int:
    """As many as the tokens are, or as there is time for: reading takes its part."""
    if plan.tokens is not None:
        return -(-plan.tokens // (plan.window * plan.batch))
    if (decided := clock.decided("final_steps", int)) is not None:
        return decided
    read = _reader(teacher, plan.top, task)
    windows = np.zeros((READ_AT_ONCE, plan.window), np.int32)
    jax.block_until_ready(read(windows))
    begin = time.monotonic()
    for _ in range(MEASURED):
        jax.block_until_ready(read(windows))
    a_window = (time.monotonic() - begin) / (MEASURED * READ_AT_ONCE)
    a_step = seconds_of_a_step(config, task, params)
    left = clock.left(ENDS)
    steps = int(left / (a_step + plan.batch * a_window))
    most = plan.stored // (plan.window * plan.batch)  # then all is read
    if steps > most:
        steps = int((left - most * plan.batch * a_window) / a_step)
    return clock.decide("final_steps", max(1, steps))


def _left(
    clock: Clock, task: Task, config: ArchitectureConfig, params: Params, steps: int
) -> int:
    """Of the steps, those that there is time for once the teacher has read.

    They are measured with what it has read, in the program that will train.
    """
    if clock.budget is None:
        return steps
    if (decided := clock.decided("steps left", int)) is not None:
        return decided
    fits = int(clock.left(ENDS) / seconds_of_a_step(config, task, params))
    return clock.decide("steps left", max(1, min(steps, fits)))


def read_lesson(
    folder: Path, plan: DistilPlan, teacher: LoadedModel, task: Task, steps: int
) -> tuple[Lesson, np.ndarray]:
    """What the teacher expects in the windows that the student will see.

    Args:
      folder: where it is stored; what is there already is read.
      plan: see `DistilPlan`.
      teacher: the model.
      task: see `Task`.
      steps: of the student's training.

    Returns:
      The windows one behind the other, and where those of each step begin,
      i32[steps, batch].
    """
    number = min(steps * plan.batch, max(1, plan.stored // plan.window))
    rng = np.random.default_rng([plan.seed, number, *b"distil"])
    train, length = task.dataset.train, plan.window + 1
    starts = rng.integers(0, len(train) - plan.window, number)
    windows = train[starts[:, None] + np.arange(length)]
    orders = [rng.permutation(number) for _ in range(-(-steps * plan.batch // number))]
    order = np.concatenate(orders)[: steps * plan.batch].reshape(steps, plan.batch)
    ids, expected = _stored(folder, plan, teacher, task, windows)
    flat = (one.reshape(-1, one.shape[-1]) for one in (ids, expected))
    lesson = Lesson(*map(jnp.asarray, (windows.reshape(-1), *flat)))
    return lesson, (order * length).astype(np.int32)


def _stored(
    folder: Path,
    plan: DistilPlan,
    teacher: LoadedModel,
    task: Task,
    windows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """ids and f16[N, T+1, K]; nothing is expected behind a window's last token."""
    done, shape = folder / "read.json", (*windows.shape, plan.top)
    paths = [folder / f"{name}.npy" for name in ("ids", "log_probabilities")]
    if not done.exists() or read_json(done) != {"shape": list(shape)}:
        folder.mkdir(parents=True, exist_ok=True)
        kinds: tuple[DTypeLike, ...] = (id_type(teacher.config.vocab_size), np.float16)
        arrays = [
            np.lib.format.open_memmap(path, "w+", kind, shape)
            for path, kind in zip(paths, kinds, strict=True)
        ]
        read = _reader(teacher, plan.top, task)
        for begin in range(0, len(windows), READ_AT_ONCE):
            part = windows[begin : begin + READ_AT_ONCE, :-1]
            whole = np.resize(part, (READ_AT_ONCE, plan.window)).astype(np.int32)
            for array, found in zip(arrays, read(whole), strict=True):
                array[begin : begin + len(part), :-1] = np.asarray(found)[: len(part)]
        for array in arrays:
            array.flush()
        write_json(done, {"shape": list(shape)})
    ids, expected = (np.load(path, mmap_mode="r") for path in paths)
    return ids, expected


def _reader(
    teacher: LoadedModel, top: int, task: Task
) -> Callable[[np.ndarray], tuple[jax.Array, jax.Array]]:
    """i32[B, T] -> the likeliest tokens behind each, and their log-probabilities."""
    model = build_model(teacher.config, task.dtype)
    params = jax.tree.map(jnp.asarray, teacher.params)
    read = jax.jit(lambda params, x: top_expected(logits_of(model, params, x), top))
    return lambda windows: read(params, windows)


def _trained(
    folder: RunFolder,
    task: Task,
    config: ArchitectureConfig,
    params: Params,
    order: np.ndarray,
    clock: Clock,
    console: Console,
    tracker: Tracker | None,
) -> TrainState:
    course = Course(order, "distil", Schedule.over(len(order), task.settings))

    def report(done: int, total: int, loss: float) -> None:
        clock.save(SPENT_EVERY)  # a resume has the rest
        if tracker is not None:
            tracker("training", done, {"loss": loss})
        show(done, total, loss)

    with steps_shown(console, "distilling") as show:
        begun = starting_state(config, task, params)
        try:
            return train_saved(
                config,
                task,
                begun,
                course,
                Checkpoints(folder.finishing, keep=1),
                time.monotonic,
                report,
                enough_by(clock, "ended", ENDS),
            )
        except TrainingFailed as error:
            raise RunFailed(f"{error}: a lower --learning-rate may help") from None


def _scores_before(
    plan: DistilPlan, task: Task, teacher: LoadedModel, student: Student
) -> dict[str, dict[str, float]]:
    """Of what is there before anything is trained."""
    score = functools.partial(score_stored, teacher.config, task, teacher.params)
    found = {"teacher": _bits("teacher", plan, task, score)}
    if student.params is not None:
        score = functools.partial(score_stored, student.config, task, student.params)
        name = "student, as it was"
        found[name] = _bits(name, plan, task, score)
    return found


def _bits(
    name: str, plan: DistilPlan, task: Task, score: Callable[[np.ndarray], WindowSums]
) -> dict[str, float]:
    """Bits/byte of a model by held-out split."""
    found = {}
    for split in HELD_OUT:
        metrics = score(task.windows(split, plan.final_windows)).metrics()
        if metrics is None:
            raise RunFailed(f"the loss of the {name} is not finite")
        found[split] = metrics.bits_per_byte
    return found


def _show(
    console: Console,
    scores: dict[str, dict[str, float]],
    teacher: ArchitectureConfig,
    student: ArchitectureConfig,
) -> None:
    table = plain_table("Next-token quality", "model")
    add_numbers(table, "MiB", *(f"bits/byte {split}" for split in HELD_OUT))
    for name, found in scores.items():
        config = teacher if name == "teacher" else student
        bits = (f"{found[split]:.4f}" for split in HELD_OUT)
        table.add_row(name, f"{size_bytes(config) / MIB:.3f}", *bits)
    console.print(table)
