"""The winner of a search: trained on, scored on the test split, saved."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from arch import ArchitectureConfig, Params
from jaxnas.data import score_bigram, score_unigram
from jaxnas.errors import RunFailed
from jaxnas.export.model_folder import read_arrays, write_arrays
from jaxnas.results.summary import SplitScores
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.training.keys import training_key
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import batch_starts
from jaxnas.training.phase import FIRST, Phase
from jaxnas.training.scoring import Compression, score
from jaxnas.training.single import Report, continue_training, starting_state
from jaxnas.training.task import Task

SAVE_EVERY = 60.0  # seconds between checkpoints of the last training


class BestWeights:
    """Keeps the trained weights of the best candidate so far, in one file."""

    def __init__(self, path: Path) -> None:
        """What the file holds already has to be beaten; a damaged one goes."""
        self.path = path
        self._best = 0, -float("inf")
        if path.exists():
            try:
                said = read_arrays(path)[1]
                self._best = int(said["rung"]), float(said["fitness"])
            except (SafetensorError, KeyError, ValueError):
                path.unlink()  # the winner is trained again

    def offer(
        self,
        config: ArchitectureConfig,
        params: Params,
        fitness: float | None,
        phase: Phase = FIRST,
    ) -> None:
        """Writes the weights if the candidate is better than all before.

        Args:
          config: the candidate.
          params: its weights as they were scored, before quantisation.
          fitness: None if it failed.
          phase: that they are of; a later one beats all earlier ones, and those
            from other seeds do not count.
        """
        rung = phase.rung
        if phase.repeat:
            return
        if fitness is not None and (rung, fitness) > self._best:
            metadata = {
                "training": training_name(config, rung),
                "rung": str(rung),
                "fitness": repr(fitness),
            }
            write_arrays(self.path, params, metadata)
            self._best = rung, fitness

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


def train_on(
    config: ArchitectureConfig,
    task: Task,
    params: Params,
    steps: int,
    checkpoints: Checkpoints,
    clock: Callable[[], float],
    report: Report,
) -> Params:
    """Trains the winner for more steps, from its weights, with a new schedule.

    Goes on from the checkpoints if they hold a part of it; saving does not
    change the result.
    """
    if steps == 0:
        return params
    phase = PhaseLength(samples=steps * task.settings.batch, epochs=1)
    tokens = len(task.dataset.train)
    starts = batch_starts(task.seed, tokens, task.settings, phase, "finish")
    begun = starting_state(config, task, params)
    found = checkpoints.latest(begun)
    if found is not None:
        begun = found[1]
    saved = clock()
    for state, losses in continue_training(config, task, begun, starts, "finish"):
        report(int(state.step), steps, float(losses[-1]))
        if clock() - saved > SAVE_EVERY:
            checkpoints.save(int(state.step), state)
            saved = clock()
    return state.params


def score_splits(
    config: ArchitectureConfig, task: Task, params: Params, number: int
) -> dict[str, SplitScores]:
    """The compressed winner and the n-gram baselines on the held-out splits."""
    dataset = task.dataset
    compression = Compression(config.quantization, config.pruning_ratio)
    found: dict[str, SplitScores] = {}
    for split in ("validation", "test"):
        chosen = task.windows(split, number)
        metrics = score(config, task, params, chosen, [compression])[0]
        if metrics is None:
            raise RunFailed(f"the winner's loss on the {split} split is not finite")
        found[split] = {
            "windows": len(chosen),
            "winner": dataclasses.asdict(metrics),
            "unigram": score_unigram(
                dataset.train, chosen, dataset.token_bytes
            )._asdict(),
            "bigram": score_bigram(
                dataset.train, chosen, dataset.token_bytes
            )._asdict(),
        }
    return found
