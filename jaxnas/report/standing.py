"""How far a run is, in lines."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from jaxnas.clock import clock_words
from jaxnas.report.tables import mebibytes
from jaxnas.report.words import describe
from jaxnas.results.record import Record
from jaxnas.results.result import Result, scored
from jaxnas.storage.jsonl import Json, read_lines
from jaxnas.storage.run_folder import RunFolder
from jaxnas.wording import command

# What a run does once a stage is done and the next one is not, in their order.
_STAGES = (
    ("search", "searching"),
    ("phases", "training the best on in later phases"),
    ("latency", "measuring the latency of the best"),
    ("finish", "training the winner on, beside it the obvious models"),
    ("repeats", "training the winner again from other seeds"),
)


def standing(record: Record, now: float | None = None) -> Json:
    """How far a run is, as JSON types; what is not known is None.

    Args:
      record: of the run.
      now: by `time.time`.
    """
    now = time.time() if now is None else now
    results, best = record.results, record.best
    statuses = [one.status for one in results]
    done = {str(entry["stage"]) for entry in record.timings if "stage" in entry}
    doing = next((words for name, words in _STAGES if name not in done), "scoring")
    seen, trainings = last_written(record.folder.path), record.folder.trainings
    left, part = _left(record, now)
    return {
        "run": str(record.folder.path),
        "state": record.state,
        "doing": None if record.state == "finished" else doing,
        "generation": max((one.generation + 1 for one in results), default=0),
        "generations": record.config.generations,
        "candidates": len(results),
        "ok": statuses.count("ok"),
        "failed": statuses.count("failed"),
        "skipped": statuses.count("skipped"),
        "later": len(record.later),
        "trainings": len(read_lines(trainings)) if trainings.exists() else 0,
        "best": None if best is None else _best(best),
        "spent": _spent(record, now),
        "left": left,
        "left_of": part,
        "silent": round(now - seen, 1),
        "resumable": record.state == "stopped",
        "resume": command("--resume", record.folder.path, *record.config.code_flags),
    }


def lines_of(about: Json) -> Iterator[str]:
    """What `standing` found, for people."""
    state, run = about["state"], about["run"]
    after = {
        "running": f", written to {clock_words(about['silent'])} ago",
        "stopped": f": go on with {about['resume']}",
        "finished": f": {command('report', run)} shows it",
    }[state]
    yield f"run         {run}"
    yield f"state       {state}{after}"
    if about["doing"] is not None:
        where = "" if state == "running" else "stopped while "
        yield f"doing       {where}{about['doing']}"
    counts = ", ".join(
        f"{about[name]} {name}" for name in ("ok", "failed", "skipped") if about[name]
    )
    later = f"; {about['later']} results of later phases" if about["later"] else ""
    done = f"{about['trainings']} trainings so far"
    extra = later or (f"; {done}" if state != "finished" else "")
    yield f"candidates  {about['candidates']}{counts and f' ({counts})'}{extra}"
    yield f"generation  {about['generation']} of {about['generations']}"
    if (best := about["best"]) is None:
        yield "best        none yet"
    else:
        yield f"best        #{best['id']}  {best['model']}"
        yield (
            f"            accuracy {best['accuracy']:.4f}, "
            f"{best['bits_per_byte']:.3f} bits/byte, {mebibytes(best['mib'])} MiB, "
            f"{best['ms']:.2f} ms"
        )
    if about["spent"] is not None:
        yield f"spent       {clock_words(about['spent'])}"
    if about["left"] is not None:
        part = f" of the {about['left_of']}"
        yield f"left        about {clock_words(about['left'])}{part}"


def last_written(folder: Path) -> float:
    """When a run last wrote to its folder, by `time.time`; 0 if it is empty.

    The page does not count: `report` writes it while the run goes on.
    """
    page, times = RunFolder(folder).report, [0.0]
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was renamed meanwhile
            if path.is_file() and path != page:
                times.append(path.stat().st_mtime)
    return max(times)


def _best(best: Result) -> Json:
    [one] = scored([best])
    return {
        "id": one.id,
        "model": describe(one.config),
        "accuracy": one.metrics.accuracy,
        "bits_per_byte": one.metrics.bits_per_byte,
        "mib": one.costs.size_mib,
        "ms": one.costs.latency_ms,
        "config": one.config.to_dict(),
    }


def _spent(record: Record, now: float) -> float | None:
    """Seconds, as far as they are recorded; of a budget that runs, up to now."""
    if record.clock is not None:
        since = now - record.folder.budget.stat().st_mtime
        return record.clock["spent"] + (since if record.state == "running" else 0.0)
    stages = [float(one["seconds"]) for one in record.timings if "stage" in one]
    return sum(stages) if stages else None


def _left(record: Record, now: float) -> tuple[float | None, str | None]:
    """Seconds that are left, and of what: budget or search; None if not known."""
    if record.state == "finished":
        return None, None
    budget, spent = record.config.budget_seconds(), _spent(record, now)
    if budget is not None and spent is not None:
        return max(0.0, budget - spent), "budget"
    plans = [float(one["seconds"]) for one in record.timings if "buckets" in one]
    known = len(record.results)
    if not plans or not known or any("stage" in one for one in record.timings):
        return None, None
    generation = max(one.generation + 1 for one in record.results)
    open_ = (record.config.generations - generation) * record.config.population
    return max(0, open_) * sum(plans) / known, "search"
