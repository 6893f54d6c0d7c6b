"""Whether what Orbax saved in a run's folder is whole; nothing is changed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxnas.errors import UsageError
from jaxnas.pipeline.finding import Finding
from jaxnas.population.train_states import CURE
from jaxnas.storage.checkpoints import is_unfinished, read_saved
from jaxnas.storage.jsonl import Line, mark_of
from jaxnas.storage.run_folder import RunFolder


def saved_parts(
    folder: RunFolder, lines: Mapping[str, Sequence[Line]]
) -> Iterator[Finding]:
    """Each checkpoint that a resume would read, and each state.

    Args:
      folder: of the run.
      lines: of its files by their names, each up to the first that is damaged.
    """
    if _numbers(folder.checkpoints):
        yield _checkpoint(folder, folder.checkpoints, "generation", lines)
    if _numbers(folder.finishing):
        yield _checkpoint(folder, folder.finishing, "step", lines)
    if folder.summary.exists():
        return  # nothing reads the others of a finished run
    for path in _entries(folder.finishing):
        if not path.name.isdigit() and _numbers(path):
            yield _checkpoint(folder, path, "step", lines)
    if states := _entries(folder.states):
        yield _states(folder.states, states)


def _entries(folder: Path) -> list[Path]:
    """What is whole in a folder, by name; nothing if there is none."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if not is_unfinished(path)]


def _numbers(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in _entries(folder) if p.name.isdigit())


def _checkpoint(
    folder: RunFolder,
    inside: Path,
    what: str,
    lines: Mapping[str, Sequence[Line]],
) -> Finding:
    """The newest checkpoint of a folder inside: it is the one that a resume reads."""
    numbers = _numbers(inside)
    path = inside / str(numbers[-1])
    name = str(path.relative_to(folder.path))
    before = f"{what} {numbers[-2]}" if len(numbers) > 1 else "the beginning"
    lost = f"a resume would go on from {before}, once it is removed"
    try:
        known = read_saved(path).known
    except UsageError as error:
        return Finding(name, str(error), lost)
    wrong = []
    for file, mark in (known or {}).items():
        own = lines.get(file, ())
        if len(own) < mark.lines:
            wrong.append(f"{file} has {len(own)} whole lines, it knows {mark.lines}")
        elif mark_of(own, mark.lines) != mark:
            wrong.append(f"the first {mark.lines} lines of {file} are others")
    if wrong:
        return Finding(name, "; ".join(wrong), lost)
    words = ", ".join(f"{mark.lines} of {file}" for file, mark in (known or {}).items())
    return Finding(name, f"whole; it knows the lines {words}" if words else "whole")


def _states(folder: Path, states: Sequence[Path]) -> Finding:
    """All states as one part, named by the first that is damaged."""
    for path in states:
        try:
            read_saved(path, CURE)
        except UsageError as error:
            lost = "a training, which is done again once it is removed"
            return Finding(f"{folder.name}/{path.name}", str(error), lost)
    return Finding(folder.name, f"{len(states)} trainings to go on from, whole")
