"""Real training of one candidate, then its score as it would be exported."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig, build_model
from arch.config import QUANTIZATIONS
from arch.cost import kept_channels
from arch.initial import draw_parameters
from jaxnas.compress import prune_in_place, round_weights
from jaxnas.data import Dataset
from jaxnas.keys import key_of
from jaxnas.train.loop import (
    Schedule,
    Trainer,
    TrainState,
    batch_starts,
    logits_of,
    make_trainer,
    next_token_losses,
)
from jaxnas.train.phases import Phase
from jaxnas.train.settings import TrainSettings

SCORE_BATCH = 8  # windows scored at once

Report = Callable[[int, int, float], None]  # steps done, all steps, last loss


class Compression(NamedTuple):
    """What is done to the weights after training; it changes no training."""

    quantization: str
    pruning_ratio: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics:
    """Quality over the targets of some windows."""

    accuracy: float  # share of next tokens that are the first choice
    loss: float  # nats per token
    perplexity: float  # exp of it
    bits_per_byte: float  # compares across tokenizers


class TrainingFailed(RuntimeError):
    """A training that ended without a usable model."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What every candidate of a run is trained on, and how."""

    dataset: Dataset
    settings: TrainSettings
    seed: int
    dtype: np.dtype  # of the matrix products

    @functools.cached_property
    def train_tokens(self) -> jax.Array:
        """The training split, resident on the device."""
        return jnp.asarray(self.dataset.train)

    @functools.cached_property
    def token_bytes(self) -> jax.Array:
        """f32[V], bytes of each token."""
        return jnp.asarray(self.dataset.token_bytes, jnp.float32)

    def key(self, purpose: str) -> jax.Array:
        """A PRNG key of the run's seed, another one for each purpose."""
        return key_of(self.seed, purpose)


@functools.lru_cache(maxsize=1)  # the winner trains on in the program it had
def _trainer(
    config: ArchitectureConfig, settings: TrainSettings, dtype: np.dtype
) -> Trainer:
    return make_trainer(build_model(config, dtype), settings)


def training_config(config: ArchitectureConfig) -> ArchitectureConfig:
    """The config as far as training knows it: equal for equal trainings.

    Compression comes after training, and flash attention is the same function
    as dense attention without its dropout.
    """
    changes: dict = {"quantization": "fp16", "pruning_ratio": 0.0}
    if config.arch_type == "flash_attention":
        changes |= {"arch_type": "transformer", "attention_dropout": 0.0}
    return dataclasses.replace(config.canonical(), **changes)


def starting_state(
    config: ArchitectureConfig, task: Task, params: dict | None = None
) -> TrainState:
    """A fresh optimizer at the given parameters, or at untrained ones."""
    if params is None:
        params = draw_parameters(build_model(config), task.key("parameters"))
    init = _trainer(training_config(config), task.settings, task.dtype).init
    return init(params)


def continue_training(
    config: ArchitectureConfig,
    task: Task,
    state: TrainState,
    starts: np.ndarray,
    purpose: str,
) -> Iterator[tuple[TrainState, np.ndarray]]:
    """Trains from the state's step to the end of `starts`, call by call.

    Args:
      config: compression is left out of account.
      task: see `Task`.
      state: donated; its step says which rows of `starts` are done.
      starts: i32[steps, B], from `batch_starts`.
      purpose: which of the task's keys dropout draws from.

    Yields:
      After each device call the state, which the next call donates, and the
      losses of the steps done in it, f32[<= steps_per_call].

    Raises:
      TrainingFailed: the loss stopped being finite.
    """
    run = _trainer(training_config(config), task.settings, task.dtype).run
    schedule = Schedule.over(len(starts), task.settings)
    key = task.key(purpose)
    size = task.settings.steps_per_call
    for begin in range(int(state.step), len(starts), size):
        rows = starts[begin : begin + size]
        full = np.resize(rows, (size, rows.shape[1]))
        state, losses = run(state, task.train_tokens, full, schedule, key, len(rows))
        losses = np.asarray(losses)[: len(rows)]
        if not np.isfinite(losses).all():
            bad = begin + int(np.argmin(np.isfinite(losses)))
            raise TrainingFailed(
                f"the training loss is {losses[bad - begin]} at step {bad}"
            )
        yield state, losses


def train(
    config: ArchitectureConfig,
    task: Task,
    phase: Phase,
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


def score(
    config: ArchitectureConfig,
    task: Task,
    params: dict,
    windows: np.ndarray,
    compressions: Sequence[Compression],
) -> list[Metrics]:
    """Quality after each of the compressions, on the same windows.

    One compiled program serves them all: pruned channels are zeroed in place,
    which is the function of the smaller model that an export would cut out. A
    lone compression is compiled in.

    Args:
      config: compression is left out of account.
      task: see `Task`.
      params: of the config's model, uncompressed.
      windows: i32[N, T+1].
      compressions: what to do to the weights first.

    Raises:
      TrainingFailed: a loss is not finite.
    """
    padded = np.resize(
        windows, (-(-len(windows) // SCORE_BATCH), SCORE_BATCH, windows.shape[1])
    )
    scorer = _scorer(training_config(config), task.dtype, len(compressions) == 1)
    found = []
    for compression in compressions:
        sums = scorer(
            params,
            padded,
            len(windows),
            task.token_bytes,
            QUANTIZATIONS.index(compression.quantization),
            kept_channels(config.feedforward_dim, compression.pruning_ratio),
        )
        found.append(_metrics(windows[:, 1:].size, *map(np.asarray, sums)))
    return found


@functools.lru_cache(maxsize=1)
def _scorer(config: ArchitectureConfig, dtype: np.dtype, compiled_in: bool):
    """jit of (params, windows, number, bytes, quantization, kept) -> sums.

    The last two are data, or constants if they are to be compiled in.
    """
    model = build_model(config, dtype)

    def sums(params, windows, number, token_bytes, quantization, kept):
        params = round_weights(prune_in_place(params, kept), quantization)

        def batch(args):
            tokens, first = args
            counted = (first + jnp.arange(len(tokens)) < number)[:, None]
            logits = logits_of(model, params, tokens[:, :-1])
            targets = tokens[:, 1:]
            return (
                jnp.sum(next_token_losses(logits, targets) * counted),
                jnp.sum((jnp.argmax(logits, axis=-1) == targets) & counted),
                jnp.sum(token_bytes[targets] * counted),
            )

        firsts = jnp.arange(len(windows)) * windows.shape[1]
        return jax.lax.map(batch, (windows, firsts))

    return jax.jit(sums, static_argnums=(4, 5) if compiled_in else ())


def _metrics(targets: int, losses, hits, token_bytes) -> Metrics:
    """From sums per batch: added on the host, in double precision."""
    nats = losses.astype(np.float64).sum()
    if not np.isfinite(nats):
        raise TrainingFailed(f"the validation loss is {nats}")
    loss = float(nats / targets)
    return Metrics(
        accuracy=float(hits.sum() / targets),
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_byte=float(nats / math.log(2) / token_bytes.astype(np.float64).sum()),
    )
