"""The run folder: where each file of a run lies, and a lock on writing there."""

import contextlib
import dataclasses
import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from jaxnas.errors import NothingAllowed, UsageError
from jaxnas.storage import disk
from jaxnas.storage.files import PARTIAL, write_whole
from jaxnas.storage.inputs import is_file, is_folder, read_json

LOCK = ".lock"
PARTS = ("search", "training")  # of `ship`, each in a folder of its own
SCORES = "scores.json"  # of what `ship` has made, and of which part that is
_LOCKING = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """Settings, TOML; a folder with them holds a run."""
        return self.path / "config.toml"

    @property
    def space(self) -> Path:
        """The space, TOML, where it is a user's own."""
        return self.path / "space.toml"

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
    def budget(self) -> Path:
        """What the clock decided, where there is a budget."""
        return self.path / "budget.json"

    @property
    def stopped(self) -> Path:
        """After which generation a callback ended the search, if one did."""
        return self.path / "stopped.json"

    @property
    def rungs(self) -> Path:
        """One line per candidate and phase after the first."""
        return self.path / "rungs.jsonl"

    @property
    def states(self) -> Path:
        """Orbax: what the candidates that may be promoted go on from."""
        return self.path / "states"

    @property
    def plans(self) -> Path:
        """One line per plan: which candidates share a program, and what that takes."""
        return self.path / "plans.jsonl"

    @property
    def failures(self) -> Path:
        """Tracebacks of the candidates that failed."""
        return self.path / "failures.log"

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
        """Orbax: the last training of the winner and of those beside it."""
        return self.path / "finishing"

    @property
    def curve(self) -> Path:
        """One line per evaluation of a long training."""
        return self.path / "curve.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files, where they were asked for; nothing is read from them."""
        return self.path / "tensorboard"

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
        """What the run found; with it the run is finished."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """All of it as one page."""
        return self.path / "report.html"

    @property
    def completions(self) -> Path:
        """Held-out lines as the winner writes them."""
        return self.path / "completions.json"

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

    @property
    def parts(self) -> list["RunFolder"]:
        """The runs of a folder of `ship`; none of others."""
        inside = [RunFolder(self.path / name) for name in PARTS]
        return [part for part in inside if is_file(part.config)]

    def holds_work(self) -> bool:
        """True once something was computed, here or in a part: it is never removed."""
        files = self.results, self.trainings, self.curve
        if any(is_file(path) and path.stat().st_size > 0 for path in files):
            return True
        folders = self.finishing, self.model
        if any(is_folder(path) and any(path.iterdir()) for path in folders):
            return True
        return any(part.holds_work() for part in self.parts)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out for as long as the block lasts.

        Raises:
          UsageError: another process works in the folder.
        """
        try:
            # Not waited for, whatever stands there.
            handle = os.open(self.path / LOCK, _LOCKING, 0o666)
            file = os.fdopen(handle, "wb")
        except OSError as error:
            raise UsageError(f"cannot write in {self.path}: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{self.path} is in use by another process") from None
            yield

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Keeps those out who would change the folder, and changes nothing itself.

        Raises:
          UsageError: another process works in the folder.
        """
        try:
            handle = os.open(self.path / LOCK, _READING)
        except OSError:  # none ever did, or it is another user's
            yield
            return
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{self.path} is in use by another process") from None
            yield
        finally:
            os.close(handle)


def model_in(path: Path) -> Path:
    """The folder of a saved model: this one, or that of the run which it holds.

    Of a folder of `ship` it is the model that was scored, or the newest so far.
    """
    if is_file(path / "config.json"):
        return path
    run = RunFolder(path)
    if is_folder(run.model):
        return run.model
    made = [part for part in run.parts if is_folder(part.model)]
    if not made:
        return path
    chosen = made[-1]
    if is_file(path / SCORES):
        chosen = RunFolder(path / str(read_json(path / SCORES).get("of")))
    return chosen.model if is_folder(chosen.model) else made[-1].model


@contextlib.contextmanager
def new_run(
    path: Path | None, name: str, settings: str, space: str | None = None
) -> Iterator[RunFolder]:
    """Makes and locks the folder of a new run, with its settings in it.

    If the block finds that the run cannot be used (a UsageError, or NothingAllowed)
    before anything was evaluated, what was made is taken back.

    Args:
      path: the folder itself, absent or empty; None takes the first free
        runs/NAME-NNN.
      name: see there.
      settings: TOML.
      space: TOML, if it is none of those that have a name.

    Yields:
      The RunFolder.

    Raises:
      UsageError: the folder cannot be made, or holds something already.
    """
    made = _make_numbered(name) if path is None else _make(path)
    folder = RunFolder(made[0] if path is None else path)
    _check_empty(folder, space)
    with folder.locked():
        _check_empty(folder, space)  # once more, now that no one else may write
        if space is not None:
            write_whole(folder.space, space)
        write_whole(folder.config, settings)  # last: now there is a run
        try:
            yield folder
        except (UsageError, NothingAllowed):
            if not folder.holds_work():
                _take_back(folder, made)
            raise


def _take_back(folder: RunFolder, made: list[Path]) -> None:
    """Empties a run's folder, and removes the folders that were made for it."""
    for entry in folder.path.iterdir():
        disk.remove_folder(entry) if entry.is_dir() else disk.remove(entry)
    with contextlib.suppress(OSError):  # one that others use by now
        for path in made:
            path.rmdir()


def _check_empty(folder: RunFolder, space: str | None) -> None:
    if folder.config.exists():
        raise UsageError(
            f"{folder.path} holds a run already: go on with --resume {folder.path}, "
            f"or choose another --out"
        )
    if any(not _left_behind(entry, folder, space) for entry in folder.path.iterdir()):
        raise UsageError(f"{folder.path} is not empty: choose another --out")


def _left_behind(path: Path, folder: RunFolder, space: str | None) -> bool:
    """Whether the same run leaves this when it is killed before it begins."""
    if path == folder.space and space is not None and path.is_file():
        return path.read_bytes() == space.encode()
    name = path.name
    return name == LOCK or (name.startswith(".") and name.endswith(PARTIAL))


@contextlib.contextmanager
def existing_run(path: Path) -> Iterator[RunFolder]:
    """Locks the folder of a run to go on with, and yields its RunFolder.

    Raises:
      UsageError: there is no run, or another process works on it.
    """
    folder = _existing(path, "resume")
    with folder.locked():
        yield folder


@contextlib.contextmanager
def run_to_read(path: Path, to: str) -> Iterator[RunFolder]:
    """The folder of a run, which no one changes meanwhile.

    Args:
      path: of the folder.
      to: what is done with it.

    Raises:
      UsageError: as for `existing_run`.
    """
    folder = _existing(path, to)
    with folder.still():
        yield folder


def _existing(path: Path, to: str) -> RunFolder:
    folder = RunFolder(path)
    if not is_file(folder.config):
        what = "holds no run" if is_folder(path) else "does not exist"
        raise UsageError(f"cannot {to}: {path} {what} (no {folder.config.name})")
    _check_kinds(folder)
    return folder


_FOLDERS = ("states", "checkpoints", "finishing", "model", "tensorboard")


def _check_kinds(folder: RunFolder) -> None:
    """Refuses what is no file where a run has one, and no folder likewise."""
    for path in folder.path.iterdir():
        wanted = "folder" if path.name in _FOLDERS else "file"
        fits = path.is_dir() if wanted == "folder" else path.is_file()
        if not fits and hasattr(RunFolder, path.stem.replace(".", "_")):
            raise UsageError(f"{path} is damaged: it is no {wanted}")


def _make(path: Path) -> list[Path]:
    """Makes a folder; returns those that were not there, the deepest first."""
    try:
        str(path).encode()  # Orbax takes no other names
        absent = [folder for folder in (path, *path.parents) if not folder.exists()]
        disk.make_folder(path)
    except UnicodeEncodeError:
        raise UsageError(
            f"cannot make the folder {path}: its name must be UTF-8"
        ) from None
    except (OSError, ValueError) as error:  # the latter: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot make the folder {path}: {reason}") from None
    return absent


def _make_numbered(name: str) -> list[Path]:
    """Makes the first free runs/NAME-NNN: no two processes get the same."""
    runs = Path("runs")
    above = _make(runs)
    numbers = itertools.count(1)
    while True:
        path = runs / f"{name}-{next(numbers):03d}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"cannot make {path}: {error.strerror}") from None
        return [path, *above]
