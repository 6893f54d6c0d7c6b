"""Real training of one candidate."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from arch import ArchitectureConfig, Params, build_model
from arch.initial import draw_parameters
from arch.padding import parameter_shapes
from jaxnas.runtime import give_back
from jaxnas.training.devices import TrainingProgram
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import (
    Schedule,
    TrainingFunctions,
    TrainState,
    batch_starts,
    fresh_state,
    make_trainer,
)
from jaxnas.training.settings import TrainSettings
from jaxnas.training.task import Task

Report = Callable[[int, int, float], None]  # steps done, all steps, last loss


ALIKE = ("transformer", "flash_attention")  # without dropout of attention, or window
DENSE_TOKENS = 128  # one block of flash attention


class TrainingFailed(RuntimeError):
    """A training that ended without a usable model."""


@functools.lru_cache(maxsize=4)  # the winner and what trains beside it go on there
def trainer_of(
    config: ArchitectureConfig,
    settings: TrainSettings,
    dtype: np.dtype,
    everywhere: jax.sharding.Sharding | None = None,
) -> TrainingFunctions:
    """A config's training, see `make_trainer`; the newest few are kept."""
    return make_trainer(build_model(config, dtype), settings, everywhere)


@functools.lru_cache(maxsize=4096)
def training_config(config: ArchitectureConfig) -> ArchitectureConfig:
    """The config as far as training knows it: equal for equal trainings.

    Compression comes after training, and dense attention without dropout and window
    is the same function as flash attention: long sequences take the one that needs less
    memory, short ones the one that takes less time.
    """
    config = config.canonical()
    changes: dict = {"quantization": "fp16", "pruning_ratio": 0.0}
    whole = config.attention_dropout == 0 and config.sliding_window is None
    if config.arch_type in ALIKE and whole:
        long = config.max_seq_length > DENSE_TOKENS
        changes["arch_type"] = "flash_attention" if long else "transformer"
    return dataclasses.replace(config, **changes)


def blank_state(config: ArchitectureConfig, settings: TrainSettings) -> TrainState:
    """Zeros in the shapes of a training's state, NumPy arrays."""
    shapes = parameter_shapes(training_config(config))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.tree.map(np.asarray, fresh_state(params, settings))


def starting_state(
    config: ArchitectureConfig, task: Task, params: Params | None = None
) -> TrainState:
    """A fresh optimizer at the given parameters, or at untrained ones."""
    if params is None:
        params = draw_parameters(build_model(config), task.key("parameters"))
    init = trainer_of(training_config(config), task.settings, task.dtype).init
    return task.devices.before(init(params))


def continue_training(
    config: ArchitectureConfig,
    task: Task,
    state: TrainState,
    starts: np.ndarray,
    purpose: str,
    schedule: Schedule | None = None,
) -> Iterator[tuple[TrainState, np.ndarray]]:
    """Trains from the state's step to the end of `starts`, call by call.

    Args:
      config: compression is left out of account.
      task: see `Task`.
      state: donated; its step says which rows of `starts` are done.
      starts: i32[steps, B], from `batch_starts`.
      purpose: which of the task's keys dropout draws from.
      schedule: of the training; None is the settings', over all steps.

    Yields:
      After each device call the state, which the next call donates, and the
      losses of the steps done in it, f32[<= steps_per_call].

    Raises:
      TrainingFailed: the loss stopped being finite.
    """
    if schedule is None:
        schedule = Schedule.over(len(starts), task.settings)
    devices, key = task.devices, task.key(purpose)
    training = TrainingProgram(training_config(config), task.settings, task.dtype, key)
    run = trainer_of(*training[:3], devices.everywhere).run
    tokens = task.train_tokens
    size = task.settings.steps_per_call
    first = int(state.step)
    state = devices.begin(training, state)
    for begin in range(first, len(starts), size):
        rows = starts[begin : begin + size]
        full = np.resize(rows, (size, rows.shape[1]))
        with devices.call(full, schedule, len(rows)):
            given = devices.shared_out(full), schedule, key, len(rows)
            state, losses = run(state, tokens, *given)
            losses = np.asarray(losses)[: len(rows)]
        if begin == first:
            give_back()  # what compiling took
        if not np.isfinite(losses).all():
            bad = begin + int(np.argmin(np.isfinite(losses)))
            raise TrainingFailed(
                f"the training loss is {losses[bad - begin]} at step {bad}"
            )
        yield state, losses


def train(
    config: ArchitectureConfig,
    task: Task,
    phase: PhaseLength,
    *,
    report: Report = lambda done, total, loss: None,
) -> tuple[dict, np.ndarray]:
    """Trains a fresh model for a phase.

    Args:
      config: compression is left out of account.
      task: see `Task`.
      phase: how long.
      report: called with steps done, all steps, and the last loss.

    Returns:
      The parameters and f32[steps], the training loss of each step.

    Raises:
      TrainingFailed: the loss stopped being finite.
    """
    starts = batch_starts(task.seed, len(task.dataset.train), task.settings, phase)
    fresh = starting_state(config, task)
    curve: list[np.ndarray] = []
    for state, losses in continue_training(config, task, fresh, starts, "dropout"):
        curve.append(losses)
        report(int(state.step), len(starts), float(losses[-1]))
    return state.params, np.concatenate(curve)
