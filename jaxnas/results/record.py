"""What a run's folder holds by now, whoever may be writing to it."""

import dataclasses
import fcntl
import json
from collections.abc import Sequence
from pathlib import Path

from jaxnas.config import Settings, make_config, read_toml
from jaxnas.errors import UsageError
from jaxnas.evaluation.user_objectives import objective_names
from jaxnas.results.phases import last_phase
from jaxnas.results.ranking import top_results
from jaxnas.results.result import Result, Scored, read_results
from jaxnas.results.summary import Summary
from jaxnas.storage.jsonl import Json, read_lines
from jaxnas.storage.run_folder import LOCK, RunFolder

STATES = ("running", "finished", "stopped")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A run as it stands; what it has not written yet is empty or None.

    Attributes:
      folder: of the run.
      state: one of STATES; a run that was stopped can be resumed.
      config: its settings, as far as they are known.
      manifest: versions, device, data; empty until the data is read.
      results: of the first phase.
      later: of the phases after it.
      timings: what took how long.
      clock: what is spent of a budget and what was decided; empty without one.
      summary: of a run that is finished.
      failures: tracebacks.
    """

    folder: RunFolder
    state: str
    config: Settings
    manifest: Json
    results: Sequence[Result]
    later: Sequence[Result]
    timings: Sequence[Json]
    clock: Json
    summary: Summary | None
    failures: str

    @property
    def objectives(self) -> list[str]:
        """Names of the user's objectives."""
        return objective_names(self.config.objectives)

    @property
    def last(self) -> list[Result]:
        """Results of the last phase in which a candidate succeeded."""
        return last_phase(self.folder.rungs, self.results)

    @property
    def best(self) -> Scored | None:
        """The winner so far, None if no candidate has succeeded."""
        return next(iter(top_results(self.last, 1)), None)


def read_record(path: Path, ended: bool = False) -> Record:
    """Reads the folder of a search.

    Args:
      path: of the folder.
      ended: whether it is this process that works in it, and is done.

    Raises:
      UsageError: there is none, or a file is damaged.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        what = "holds no run" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {what} (no {folder.config.name})")
    if folder.curve.exists():
        raise UsageError(f"{path} holds a training: it takes the folder of a search")
    config = make_config(read_toml(folder.config), str(folder.config))
    manifest = _json(folder.manifest)
    summary: Summary | None = _json(folder.summary) or None  # type: ignore[assignment]
    backend = manifest.get("decides", {}).get("backend", "cpu")
    return Record(
        folder=folder,
        state=_state(path, summary is not None, ended),
        config=config.resolve(backend),
        manifest=manifest,
        results=read_results(folder.results) if folder.results.exists() else [],
        later=read_results(folder.rungs) if folder.rungs.exists() else [],
        timings=read_lines(folder.timings) if folder.timings.exists() else [],
        clock=_json(folder.budget),
        summary=summary,
        failures=_text(folder.failures),
    )


def _state(path: Path, whole: bool, ended: bool) -> str:
    if not ended and is_locked(path):
        return "running"
    return "finished" if whole else "stopped"


def is_locked(path: Path) -> bool:
    """Whether a process works in a run's folder."""
    try:
        file = (path / LOCK).open()
    except OSError:  # none ever did, or it is another user's
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _json(path: Path) -> Json:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is damaged: it is no JSON object")
    return value
