"""The winner of a search: trained on, scored on the test split, saved."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from safetensors import SafetensorError

from arch import ArchitectureConfig, Params
from arch.decoding.generate import position_limit
from jaxnas.data import score_bigram, score_unigram
from jaxnas.errors import RunFailed
from jaxnas.export.model_folder import read_arrays, write_arrays
from jaxnas.results.gain import quality
from jaxnas.results.summary import SplitScores
from jaxnas.storage import disk
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.training.keys import training_key
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import Schedule, TrainState, batch_starts
from jaxnas.training.phase import FIRST, Phase
from jaxnas.training.scoring import WindowSums, score_stored, score_windows
from jaxnas.training.settings import FINISH_DECAY, FINISH_WARMUP, LAST_DECAY
from jaxnas.training.single import Report, continue_training, starting_state
from jaxnas.training.task import Task

SAVE_EVERY = 60.0  # seconds between checkpoints of the last training

HELD_OUT = ("validation", "test")


class BestWeights:
    """Keeps the trained weights of the best candidate so far, in one file."""

    def __init__(self, path: Path) -> None:
        """What the file holds already has to be beaten; a damaged one goes."""
        self.path = path
        self._best = 0, -float("inf")
        if path.exists():
            try:
                said = read_arrays(path)[1]
                self._best = int(said["rung"]), float(said["worth"])
            except (SafetensorError, KeyError, ValueError):
                disk.remove(path)  # the winner is trained again

    def offer(
        self,
        config: ArchitectureConfig,
        params: Params,
        worth: float | None,
        phase: Phase = FIRST,
    ) -> None:
        """Writes the weights if the candidate is better than all before.

        Args:
          config: the candidate.
          params: its weights as they were scored, before quantisation.
          worth: see `Prospects.worth`; None if it failed.
          phase: that they are of; a later one beats all earlier ones, and those
            from other seeds do not count.
        """
        rung = phase.rung
        if phase.repeat:
            return
        if worth is not None and (rung, worth) > self._best:
            metadata = {
                "training": training_name(config, rung),
                "rung": str(rung),
                "worth": repr(worth),
            }
            write_arrays(self.path, params, metadata)
            self._best = rung, worth

    def read(self, config: ArchitectureConfig, rung: int = 0) -> Params | None:
        """The weights, if they are those of the config's training in that phase."""
        if not self.path.exists():
            return None
        params, metadata = read_arrays(self.path)
        same = metadata["training"] == training_name(config, rung)
        return params if same else None


def training_name(config: ArchitectureConfig, rung: int, *more: int) -> str:
    """What decides a candidate's weights: pruned ones have trained on."""
    parts = training_key(config), config.pruning_ratio, rung, *more
    return "-".join(map(str, parts))


class Course(NamedTuple):
    """A part of a training: its windows, its keys and its learning rates.

    Attributes:
      starts: i32[steps, B], see `batch_starts`.
      purpose: which of the task's keys dropout draws from.
      schedule: None is the settings', over all steps.
    """

    starts: np.ndarray
    purpose: str
    schedule: Schedule | None = None


def last_course(
    task: Task,
    steps: int,
    drawn: int | None = None,
    decay: float = LAST_DECAY,
    warmup: float | None = None,
) -> Course:
    """The last training: new windows, and a new schedule.

    Args:
      task: see `Task`.
      steps: of it.
      drawn: steps that windows are drawn for; as many by default.
      decay: share of the steps in which the learning rate decays.
      warmup: share of the steps in which it rises; None is the settings'.
    """
    drawn = steps if drawn is None else drawn
    phase = PhaseLength(samples=drawn * task.settings.batch, epochs=1)
    tokens = len(task.dataset.train)
    rises = task.settings.warmup_share if warmup is None else warmup
    settings = dataclasses.replace(task.settings, decay_share=decay, warmup_share=rises)
    starts = batch_starts(task.seed, tokens, settings, phase, "finish")
    return Course(starts[:steps], "finish", Schedule.over(steps, settings))


class End(Protocol):
    """When a training ends; see `jaxnas.pipeline.last_end`."""

    @property
    def steps(self) -> int:
        """As planned."""
        ...

    @property
    def most(self) -> int:
        """Steps that windows are drawn for."""
        ...

    @property
    def now(self) -> int:
        """The step at which it ends, by what was last known."""
        ...

    def at(self, done: int) -> int:
        """The step at which it ends, as far as known after so many."""
        ...

    def ended(self, done: int) -> None:
        """Told that it has ended."""
        ...


def train_on(
    config: ArchitectureConfig,
    task: Task,
    params: Params,
    end: End,
    checkpoints: Checkpoints,
    clock: Callable[[], float],
    report: Report,
    enough: Callable[[int, Params], bool] = lambda done, params: False,
    decay: float = FINISH_DECAY,
    warmup: float | None = FINISH_WARMUP,
) -> tuple[int, Params]:
    """Trains a model on, from its weights, with a new schedule.

    Where the end moves, the schedule is from then on the one that ends there.

    Args:
      config: compression is left out of account.
      task: see `Task`.
      params: to begin from.
      end: when it ends.
      checkpoints: of this training alone; it goes on from what they hold.
      clock: seconds, for when to save.
      report: told of the steps.
      enough: told the steps done and the weights, returns whether to stop there.
      decay, warmup: of the schedule, see `last_course`.

    Returns:
      The steps done, and the parameters they left.
    """
    if end.most == 0:
        return 0, params
    begun = starting_state(config, task, params)
    found = checkpoints.latest(begun)
    state = begun if found is None else found[1]
    save, done = _saving(checkpoints, clock, task), int(state.step)
    steps = end.at(done)
    while done < steps:
        course = last_course(task, steps, end.most, decay, warmup)
        training = continue_training(config, task, state, *course)
        for state, losses in training:
            done = int(state.step)
            report(done, steps, float(losses[-1]))
            if enough(done, state.params):
                end.ended(done)
                return done, state.params
            save(state)
            if (moved := end.at(done)) != steps:
                steps = moved
                break
    end.ended(done)
    return done, state.params


def train_saved(
    config: ArchitectureConfig,
    task: Task,
    begun: TrainState,
    course: Course,
    checkpoints: Checkpoints,
    clock: Callable[[], float],
    report: Report,
    enough: Callable[[int], bool] = lambda done: False,
) -> TrainState:
    """Trains with checkpoints, and goes on from them if they hold a part of it.

    Saving does not change the result.

    Args:
      config: compression is left out of account.
      task: see `Task`.
      begun: where it begins.
      course: what it trains on.
      checkpoints: of this training alone.
      clock: seconds, for when to save.
      report: told of the steps.
      enough: told the steps done, returns whether to stop there.
    """
    found = checkpoints.latest(begun)
    state = begun if found is None else found[1]
    if enough(int(state.step)):
        return state
    save = _saving(checkpoints, clock, task)
    starts, purpose, schedule = course
    training = continue_training(config, task, state, starts, purpose, schedule)
    for state, losses in training:
        done = int(state.step)
        report(done, len(starts), float(losses[-1]))
        if enough(done):
            break
        save(state)
    return state


def _saving(
    checkpoints: Checkpoints, clock: Callable[[], float], task: Task
) -> Callable[[TrainState], None]:
    """What saves a state if the last one was saved long ago."""
    saved = clock()

    def save(state: TrainState) -> None:
        nonlocal saved
        if clock() - saved > SAVE_EVERY:
            checkpoints.save(int(state.step), task.devices.on_one(state))
            saved = clock()

    return save


def sums_of_splits(
    config: ArchitectureConfig,
    task: Task,
    params: Params,
    number: int,
    stored: bool = False,
) -> dict[str, WindowSums]:
    """A compressed model on so many windows of the held-out splits.

    A window that is longer than the model's positions is read in parts: the same
    tokens but a few at its end, with less before each.

    Weights that are `stored` are compressed already: what calibration has rounded
    would be other weights if they were rounded to nearest once more.
    """
    score = score_stored if stored else score_windows
    limit = position_limit(config) or task.settings.window
    return {
        split: score(config, task, params, parted(task.windows(split, number), limit))
        for split in HELD_OUT
    }


def parted(windows: np.ndarray, limit: int) -> np.ndarray:
    """i32[N, T+1] -> i32[N P, T//P+1], for the fewest P that reads at most `limit`."""
    length = windows.shape[1] - 1
    parts = -(-length // limit)
    part = length // parts
    places = part * np.arange(parts)[:, None] + np.arange(part + 1)[None]
    return windows[:, places].reshape(-1, part + 1)


def score_splits(
    task: Task, winner: Mapping[str, WindowSums], number: int
) -> dict[str, SplitScores]:
    """The compressed winner and the n-gram baselines on the held-out splits.

    Args:
      task: see `Task`.
      winner: from `sums_of_splits`.
      number: of windows, as there.
    """
    dataset = task.dataset
    found: dict[str, SplitScores] = {}
    for split, sums in winner.items():
        chosen = task.windows(split, number)
        ngram = lambda score, chosen=chosen: quality(
            score(dataset.train, chosen, dataset.token_bytes)._asdict()
        )
        metrics = sums.metrics()
        if metrics is None:
            raise RunFailed(f"the winner's loss on the {split} split is not finite")
        found[split] = {
            "windows": len(chosen),
            "winner": quality(dataclasses.asdict(metrics)),
            "unigram": ngram(score_unigram),
            "bigram": ngram(score_bigram),
        }
    return found
