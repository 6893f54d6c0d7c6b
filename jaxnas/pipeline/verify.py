"""Whether the parts of a run's folder belong together, and what is lost if not."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxnas.clock import WINNER, Spent
from jaxnas.config import read_run_settings
from jaxnas.errors import UsageError
from jaxnas.evaluation.training_log import training_of
from jaxnas.export.model_folder import load_model
from jaxnas.pipeline.finding import Finding
from jaxnas.pipeline.manifest import hash_of
from jaxnas.pipeline.verify_saved import saved_parts
from jaxnas.pipeline.watcher import EndedAfter
from jaxnas.results.phases import last_of
from jaxnas.results.ranking import front_of, top_results, winner_of
from jaxnas.results.record import Manifest
from jaxnas.results.result import Result
from jaxnas.storage.inputs import read_bytes, read_json, read_toml
from jaxnas.storage.jsonl import DamagedLine, Line, scan
from jaxnas.storage.kinds import read_kept
from jaxnas.storage.run_folder import RunFolder

_FILE_BYTES = 2**36  # of a file of the model's, at most


class Log(NamedTuple):
    """The lines of a file up to the first that is damaged."""

    path: Path
    lines: list[Line]
    damage: str | None


def verify(folder: RunFolder) -> Iterator[Finding]:
    """Each part of a run's folder, where no one works now; changes nothing."""
    yield from _facts(folder)
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
    yield from saved_parts(folder, {name: log.lines for name, log in logs.items()})
    if folder.model.is_dir():
        yield _model_part(folder)
    if folder.summary.exists():
        yield _summary_part(folder, logs)
    else:
        yield Finding(folder.summary.name, "not there: the run is not finished")


def _facts(folder: RunFolder) -> Iterator[Finding]:
    """The files that say what the run is; a resume reads all of them."""
    of_search = folder.results.exists()
    parts: tuple[tuple[Path, Callable[[Path], object], str], ...] = (
        (folder.config, read_run_settings if of_search else read_toml, "the settings"),
        (folder.manifest, _began_with if of_search else _data_of, "what it began with"),
        (folder.budget, lambda path: read_kept(path, Spent), "what the clock decided"),
        (folder.stopped, lambda path: read_kept(path, EndedAfter), "that it was ended"),
    )
    for path, read, lost in parts:
        if not path.exists():
            continue
        try:
            read(path)
        except UsageError as error:
            yield Finding(path.name, str(error), f"{lost}: a resume is refused")
        else:
            yield Finding(path.name, "can be read")


def _began_with(path: Path) -> None:
    """Raises a UsageError if a resume could not hold a run against its manifest."""
    manifest: Manifest = read_kept(path, Manifest)
    if "decides" not in manifest:
        raise UsageError(f"{path} is damaged: it is no manifest")
    space = RunFolder(path.parent).space
    began = manifest["decides"].get("space_hash")
    if space.exists() and began is not None and hash_of(space) != began:
        raise UsageError(f"{space} is not the space that the run began with")


def _data_of(path: Path) -> None:
    """Raises a UsageError if a training could not be held against its manifest."""
    if "data" not in read_kept(path, Manifest):
        raise UsageError(f"{path} is damaged: it is no manifest")


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
