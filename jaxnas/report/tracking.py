"""Trackers: told the figures of searches and trainings as they come.

A tracker is a function of the user's, found by its import path as objectives are, or
TensorBoard's. It decides nothing: what it returns is not looked at, and one that
fails is said and called no more.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from jaxnas.errors import UsageError, reason_of
from jaxnas.evaluation.user_objectives import imported
from jaxnas.results.result import Result, Scored

# Told what they are of, candidate | phase NAME | training | compression; the
# candidate's number, or the step; and the figures by their names.
Tracker: TypeAlias = Callable[[str, int, Mapping[str, float]], object]


@contextlib.contextmanager
def tracked(paths: str | None, events: Path | None) -> Iterator[Tracker | None]:
    """A tracker that tells several; None where there is none.

    Args:
      paths: `module:function` with commas between.
      events: folder for TensorBoard's files.

    Raises:
      UsageError: a function cannot be imported, or tensorboardX is not here.
    """
    with contextlib.ExitStack() as stack:
        given = [] if paths is None else [path.strip() for path in paths.split(",")]
        trackers: dict[str, Tracker] = {
            path: imported(path, "tracker") for path in given
        }
        if events is not None:
            trackers["tensorboard"] = stack.enter_context(tensorboard(events))

        def every(kind: str, step: int, figures: Mapping[str, float]) -> None:
            for name, tracker in list(trackers.items()):
                try:
                    tracker(kind, step, figures)
                except Exception as error:  # any: the run is worth more
                    del trackers[name]
                    said = f"warning: {name} failed and is told no more: "
                    print(said + reason_of(error), file=sys.stderr)

        yield every if trackers else None


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[Tracker]:
    """Writes scalars into event files below the folder.

    A search that is gone on with is told again from its beginning, a training from
    where it was left; of later steps that an earlier process wrote TensorBoard shows
    no more.

    Raises:
      UsageError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs tensorboardX: pip install 'jaxnas[tensorboard]'"
        ) from None
    writers: dict[str, SummaryWriter] = {}

    def told(kind: str, step: int, figures: Mapping[str, float]) -> None:
        if kind not in writers:
            path = folder / kind.replace(" ", "-")
            writers[kind] = SummaryWriter(str(path), purge_step=step)
        for name, value in figures.items():
            writers[kind].add_scalar(name, value, step)
        writers[kind].flush()

    try:
        yield told
    finally:
        for writer in writers.values():
            writer.close()


def on_candidate(tracker: Tracker | None) -> Callable[[Result], None] | None:
    """What a search calls with each result, to tell a tracker."""
    if tracker is None:
        return None

    def told(result: Result) -> None:
        kind = "candidate" if result.phase is None else f"phase {result.phase}"
        tracker(kind, result.id, figures_of(result))

    return told


def figures_of(result: Result) -> dict[str, float]:
    """The figures of a candidate; of a failure its costs and `failed` alone."""
    costs = {"size_mib": result.costs.size_mib, "latency_ms": result.costs.latency_ms}
    if not isinstance(result, Scored):
        return {"failed": 1.0, **costs}
    return {
        "accuracy": result.metrics.accuracy,
        "bits_per_byte": result.metrics.bits_per_byte,
        "fitness": result.fitness,
        **costs,
    }
