"""Whether the parts of a run's folder belong together, and what is lost if not."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxnas.clock import WINNER, Spent
from jaxnas.errors import UsageError
from jaxnas.evaluation.training_log import training_of
from jaxnas.export.model_folder import load_model
from jaxnas.results.phases import last_of
from jaxnas.results.ranking import front_of, top_results, winner_of
from jaxnas.results.result import Result
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.inputs import read_bytes, read_json
from jaxnas.storage.jsonl import DamagedLine, Line, mark_of, scan
from jaxnas.storage.kinds import read_kept
from jaxnas.storage.run_folder import RunFolder

_FILE_BYTES = 2**36  # of a file of the model's, at most


class Finding(NamedTuple):
    """A part of the folder, as it was found.

    Attributes:
      name: of the file or folder.
      said: what it is, or what is wrong with it.
      lost: what is lost with it; None if nothing is wrong.
    """

    name: str
    said: str
    lost: str | None = None


class Log(NamedTuple):
    """The lines of a file up to the first that is damaged."""

    path: Path
    lines: list[Line]
    damage: str | None


def verify(folder: RunFolder) -> Iterator[Finding]:
    """Each part of a run's folder, which the caller has locked; changes nothing."""
    logs = {
        path.name: _log(path)
        for path in (
            folder.results,
            folder.trainings,
            folder.plans,
            folder.rungs,
            folder.timings,
            folder.curve,
        )
        if path.exists()
    }
    for log in logs.values():
        yield _log_part(log)
    for path, what in ((folder.checkpoints, "generation"), (folder.finishing, "step")):
        if path.is_dir() and any(entry.name.isdigit() for entry in path.iterdir()):
            yield _checkpoint_part(path, what, logs)
    if folder.model.is_dir():
        yield _model_part(folder)
    if folder.summary.exists():
        yield _summary_part(folder, logs)
    else:
        yield Finding(folder.summary.name, "not there: the run is not finished")


def digests(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of what a finished search is judged by, by names in the folder."""
    paths = [folder.results, folder.rungs, folder.best, *sorted(folder.model.iterdir())]
    return {
        str(path.relative_to(folder.path)): _sha256(path)
        for path in paths
        if path.exists()
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, _FILE_BYTES)).hexdigest()


def _log(path: Path) -> Log:
    lines: list[Line] = []
    try:
        for line in scan(path):
            lines.append(line)
            _check_meaning(path, len(lines), line)
    except DamagedLine as error:
        return Log(path, lines[: error.number - 1], error.reason)
    except UsageError as error:
        return Log(path, [], str(error))
    return Log(path, lines, None)


def _check_meaning(path: Path, number: int, line: Line) -> None:
    """Raises a DamagedLine if a line of this file can't be what it holds."""
    parse = {
        "results.jsonl": Result.from_row,
        "rungs.jsonl": Result.from_row,
        "trainings.jsonl": training_of,
    }.get(path.name)
    if parse is None:
        return
    try:
        parse(line.entry)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedLine(path, number, f"it is no record ({error})") from None


def _log_part(log: Log) -> Finding:
    number, name = len(log.lines), log.path.name
    if log.damage is None:
        proven = sum(line.proven for line in log.lines)
        words = "each follows from the one before"
        if proven < number:
            words = f"{number - proven} of an earlier version, without digests"
        return Finding(name, f"{number} lines, {words}" if number else "empty")
    lost = f"what follows its first {number} lines"
    if name == "results.jsonl":
        lost += "; what was trained is in trainings.jsonl, and not trained again"
    elif name == "trainings.jsonl":
        lost += ": those candidates would be trained again"
    return Finding(name, f"line {number + 1}: {log.damage}", lost)


def _checkpoint_part(path: Path, what: str, logs: Mapping[str, Log]) -> Finding:
    numbers = sorted(int(p.name) for p in path.iterdir() if p.name.isdigit())
    name = f"{path.name}/{numbers[-1]}"
    before = f"{what} {numbers[-2]}" if len(numbers) > 1 else "the beginning"
    lost = f"a resume would go on from {before}, once it is removed"
    try:
        with Checkpoints(path, keep=len(numbers)) as checkpoints:
            checkpoints.check()
            known = checkpoints.known()
    except UsageError as error:
        return Finding(name, str(error), lost)
    wrong = []
    for file, mark in (known or {}).items():
        lines = logs[file].lines if file in logs else []
        if len(lines) < mark.lines:
            wrong.append(f"{file} has {len(lines)} whole lines, it knows {mark.lines}")
        elif mark_of(lines, mark.lines) != mark:
            wrong.append(f"the first {mark.lines} lines of {file} are others")
    if wrong:
        return Finding(name, "; ".join(wrong), lost)
    words = ", ".join(f"{mark.lines} of {file}" for file, mark in (known or {}).items())
    return Finding(name, f"whole; it knows the lines {words}" if words else "whole")


def _model_part(folder: RunFolder) -> Finding:
    name = folder.model.name
    try:
        config = load_model(folder.model).config
    except UsageError as error:
        return Finding(name, str(error), "the winner's last training")
    return Finding(name, f"loads: {config.arch_type}, {config.num_layers} layers")


def _summary_part(folder: RunFolder, logs: Mapping[str, Log]) -> Finding:
    """The summary beside what it is about."""
    name = folder.summary.name
    lost = "nothing but itself: without it a resume finishes the run again"
    try:
        summary = read_json(folder.summary)
        wrong = _changed(folder, summary.get("files", {}))
        if "search" in summary:
            wrong += _others(summary, logs, _decided_winner(folder))
    except (UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Finding(name, f"damaged ({error})", lost)
    if wrong:
        changed = any(one.startswith("model/") for one in wrong)
        lost = "the winner's last training" if changed else lost
        return Finding(name, f"is not of what is here: {', '.join(wrong)}", lost)
    if "files" not in summary and "search" in summary:
        return Finding(
            name, "of an earlier version, without digests; its figures agree"
        )
    return Finding(name, "is of what is here")


def _changed(folder: RunFolder, files: Mapping[str, str]) -> list[str]:
    """The files that are not those that a summary was written for."""
    wrong = []
    for file, digest in files.items():
        path = folder.path / file
        if not path.resolve().is_relative_to(folder.path.resolve()):
            wrong.append(f"{file} is outside")
        elif not path.is_file():
            wrong.append(f"{file} is missing")
        elif _sha256(path) != digest:
            wrong.append(f"{file} has changed")
    return wrong


def _decided_winner(folder: RunFolder) -> int | None:
    """The candidate that a budget's clock chose, if it did."""
    if not folder.budget.exists():
        return None
    spent: Spent = read_kept(folder.budget, Spent)
    return spent["decided"].get(WINNER)


def _others(summary: dict, logs: Mapping[str, Log], decided: int | None) -> list[str]:
    """Figures of a search's summary that its results do not give."""
    rows = logs["results.jsonl"].lines
    results = [Result.from_row(line.entry) for line in rows]
    later = [Result.from_row(line.entry) for line in logs["rungs.jsonl"].lines]
    said = summary["search"]
    winner = winner_of(last_of(later, results), decided)
    found = {
        "winner": (summary["winner"]["id"], winner and winner.id),
        "evaluated": (said["evaluated"], len(results)),
        "front": (said["front"], front_of(results)),
        "top": (said["top"], [r.id for r in top_results(results, len(said["top"]))]),
    }
    return [f"another {name}" for name, (told, true) in found.items() if told != true]
