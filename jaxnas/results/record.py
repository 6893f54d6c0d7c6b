"""What a run's folder holds by now, whoever may be writing to it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from arch.cost import Hardware
from jaxnas.clock import WINNER, Spent
from jaxnas.config import Settings, make_config, read_toml
from jaxnas.errors import UsageError
from jaxnas.evaluation.user_objectives import objective_names
from jaxnas.results.phases import last_of
from jaxnas.results.ranking import winner_of
from jaxnas.results.result import Result, Scored, read_results
from jaxnas.results.summary import Summary, read_summary
from jaxnas.storage.inputs import LINES_BYTES, is_file, is_folder, read_bytes
from jaxnas.storage.jsonl import Json, read_lines
from jaxnas.storage.kinds import misfit, read_kept
from jaxnas.storage.run_folder import RunFolder

STATES = ("running", "finished", "stopped")


class DataFacts(TypedDict):
    """Of a manifest: the data, as far as others read it."""

    corpus_hash: str
    files_kept: int
    bytes: int
    vocab_size: int


class Decides(TypedDict, total=False):
    """Of a manifest: what the results depend on; settings stand beside these."""

    backend: str
    corpus_hash: str
    space_hash: str
    hardware_profile: Hardware


class Manifest(TypedDict, total=False):
    """What a run ran on, as far as others read it."""

    versions: dict[str, str]
    python: str
    device: str
    cores: int
    data: DataFacts
    decides: Decides


class StageTime(TypedDict):
    """A line of the timings: a part of the run."""

    stage: str
    seconds: float


class PlanTime(TypedDict):
    """A line of the timings: a plan of trainings."""

    buckets: int
    predicted: float
    seconds: float


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
      clock: what is spent of a budget and what was decided; None without one.
      summary: of a run that is finished.
      failures: tracebacks.
    """

    folder: RunFolder
    state: str
    config: Settings
    manifest: Manifest
    results: Sequence[Result]
    later: Sequence[Result]
    timings: Sequence[Json]
    clock: Spent | None
    summary: Summary | None
    failures: str

    @property
    def found_nothing(self) -> bool:
        """Whether the search has ended, and no candidate has succeeded."""
        done = max((one.generation + 1 for one in self.results), default=0)
        ended = self.state == "stopped" and done >= self.config.generations
        return ended and all(one.status != "ok" for one in self.results)

    @property
    def objectives(self) -> list[str]:
        """Names of the user's objectives."""
        return objective_names(self.config.objectives)

    @property
    def last(self) -> list[Result]:
        """Results of the last phase in which a candidate succeeded."""
        return last_of(self.later, self.results)

    @property
    def best(self) -> Scored | None:
        """The winner so far, None if no candidate has succeeded."""
        decided = None if self.clock is None else self.clock["decided"].get(WINNER)
        return winner_of(self.last, decided)


def read_record(path: Path, ended: bool = False) -> Record:
    """Reads the folder of a search.

    Args:
      path: of the folder.
      ended: whether it is this process that works in it, and is done.

    Raises:
      UsageError: there is none, or a file is damaged.
    """
    folder = RunFolder(path)
    if not is_file(folder.config):
        what = "holds no run" if is_folder(path) else "does not exist"
        raise UsageError(f"{path} {what} (no {folder.config.name})")
    if folder.curve.exists():
        raise UsageError(f"{path} holds a training: it takes the folder of a search")
    if folder.parts:
        parts = " and ".join(str(part.path) for part in folder.parts)
        raise UsageError(f"{path} is of ship: look at its parts, {parts}")
    config = make_config(read_toml(folder.config), str(folder.config))
    manifest: Manifest = _json(folder.manifest, Manifest)
    backend = manifest.get("decides", {}).get("backend", "cpu")
    return Record(
        folder=folder,
        state=_state(path, folder.summary.exists(), ended),
        config=config.resolve(backend),
        manifest=manifest,
        results=read_results(folder.results) if folder.results.exists() else [],
        later=read_results(folder.rungs) if folder.rungs.exists() else [],
        timings=_timings(folder.timings) if folder.timings.exists() else [],
        clock=read_kept(folder.budget, Spent) if folder.budget.exists() else None,
        summary=read_summary(folder.summary) if folder.summary.exists() else None,
        failures=_text(folder.failures) if folder.failures.exists() else "",
    )


def _state(path: Path, whole: bool, ended: bool) -> str:
    if not ended and is_locked(path):
        return "running"
    return "finished" if whole else "stopped"


def is_locked(path: Path) -> bool:
    """Whether a process works in a run's folder."""
    try:
        with RunFolder(path).still():
            return False
    except UsageError:
        return True


def _timings(path: Path) -> list[Json]:
    rows = read_lines(path)
    for number, row in enumerate(rows, 1):
        for name, kind in (("stage", StageTime), ("buckets", PlanTime)):
            if name in row and (wrong := misfit(row, kind)) is not None:
                raise UsageError(f"{path} is damaged in line {number}: {wrong}")
    return rows


def _text(path: Path) -> str:
    return read_bytes(path, LINES_BYTES).decode(errors="replace")


def _json(path: Path, kind: Any) -> Any:
    """What a file holds, of that kind; nothing if it is not there."""
    return read_kept(path, kind) if path.exists() else {}
