"""The run folder: where each file of a run lies, and who may write there."""

import contextlib
import dataclasses
import fcntl
import itertools
from pathlib import Path

from jaxnas.errors import UsageError

LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """Settings, TOML; the first file that a run writes."""
        return self.path / "config.toml"

    @property
    def manifest(self) -> Path:
        """Versions, device, seed, data."""
        return self.path / "manifest.json"

    @property
    def results(self) -> Path:
        """One line per evaluated candidate."""
        return self.path / "results.jsonl"

    @property
    def trainings(self) -> Path:
        """One line per training, with the metrics of every compression."""
        return self.path / "trainings.jsonl"

    @property
    def timings(self) -> Path:
        """Clock times, which are nowhere else."""
        return self.path / "timings.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Orbax: the strategy's state at the end of some generations."""
        return self.path / "checkpoints"

    @property
    def finishing(self) -> Path:
        """Orbax: the winner's last training, while it runs."""
        return self.path / "finishing"

    @property
    def best_weights(self) -> Path:
        """The best candidate's trained weights, until the winner is finished."""
        return self.path / "best_weights.safetensors"

    @property
    def best(self) -> Path:
        """The winner's config as it was searched."""
        return self.path / "best.json"

    @property
    def summary(self) -> Path:
        """What the run found; the last file that a run writes."""
        return self.path / "summary.json"

    @property
    def model(self) -> Path:
        """The winner: weights, config, tokenizer."""
        return self.path / "model"

    @property
    def fitness_plot(self) -> Path:
        """Fitness over generations."""
        return self.path / "fitness.png"

    @property
    def pareto_plot(self) -> Path:
        """Objectives against each other."""
        return self.path / "pareto.png"

    def discard(self):
        """Takes back a run whose settings turned out to be unusable."""
        if self.results.exists() and self.results.stat().st_size:
            return
        for path in (self.config, self.manifest, self.results, self.trainings):
            path.unlink(missing_ok=True)
        for path in (self.timings, self.path / LOCK):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: it was the user's before
            self.path.rmdir()

    def lock(self):
        """Keeps other processes out for as long as the returned file is open.

        Raises:
          UsageError: another process works in the folder.
        """
        try:
            file = (self.path / LOCK).open("w")
        except OSError as error:
            raise UsageError(f"cannot write in {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise UsageError(f"{self.path} is in use by another process") from None
        return file


def new_folder(path: Path | None, name: str) -> RunFolder:
    """Makes the folder of a new run.

    Args:
      path: the folder itself; None takes the first free runs/NAME-NNN.
      name: what the run is called, if it has to be.

    Raises:
      UsageError: it cannot be made, or holds a run already.
    """
    if path is None:
        numbered = (Path("runs") / f"{name}-{n:03d}" for n in itertools.count(1))
        path = next(place for place in numbered if not place.exists())
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror}") from None
    folder = RunFolder(path)
    if folder.config.exists():
        raise UsageError(
            f"{path} holds a run already: go on with --resume {path}, "
            f"or choose another --out"
        )
    return folder


def existing_folder(path: Path) -> RunFolder:
    """The folder of a run to go on with.

    Raises:
      UsageError: there is no run.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        what = "holds no run" if path.is_dir() else "does not exist"
        raise UsageError(f"cannot resume: {path} {what} (no {folder.config.name})")
    return folder
