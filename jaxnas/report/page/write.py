"""The page of a run, put together and written."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxnas.report.page.document import document
from jaxnas.report.page.front import front
from jaxnas.report.page.genes import genes, parallel
from jaxnas.report.page.history import history, phases, times
from jaxnas.report.page.overview import (
    Completion,
    asked,
    completions,
    limits_words,
    quality,
    tiles,
    winner_words,
)
from jaxnas.report.page.rest import (
    candidates,
    drawings,
    failures,
    latency,
    next_steps,
)
from jaxnas.report.page.tags import tag
from jaxnas.report.page.view import PageView, data_of
from jaxnas.results.record import Record
from jaxnas.storage.files import write_whole
from jaxnas.wording import counted

SECTIONS: dict[str, tuple[str, Callable[[PageView], str]]] = {
    "asked": ("Asked", lambda view: asked(view.record)),
    "quality": ("Quality", lambda view: quality(view.record)),
    "front": ("Front", front),
    "history": ("History", history),
    "genes": ("Genes", genes),
    "parallel": ("Parallel", parallel),
    "phases": ("Phases", phases),
    "latency": ("Latency", latency),
    "best": ("The best", drawings),
    "candidates": ("Candidates", candidates),
    "time": ("Time", lambda view: times(view.record)),
    "failures": ("Failures", lambda view: failures(view.record)),
    "next": ("From here", next_steps),
}


def page_of(
    record: Record,
    completed: Sequence[Completion] = (),
    beside: Sequence[Record] = (),
) -> str:
    """The page: it needs no network and no other file.

    Args:
      record: of the run, finished or not.
      completed: held-out lines as the winner wrote them.
      beside: other runs, whose hypervolume is drawn beside this one's.
    """
    view = PageView(record, beside)
    found = {
        name: (title, section(view)) for name, (title, section) in SECTIONS.items()
    }
    if lines := completions(completed):
        title, inside = found["quality"]
        found["quality"] = (title, inside + tag("h3", "Completions") + lines)
    return document(
        record.folder.path.resolve().name,
        _state(record),
        tiles(view) + winner_words(view),
        found,
        data_of(view),
    )


def write_page(
    path: Path,
    record: Record,
    completed: Sequence[Completion] = (),
    beside: Sequence[Record] = (),
) -> None:
    """Writes `page_of` in one step."""
    write_whole(path, page_of(record, completed, beside))


def _state(record: Record) -> str:
    config, number = record.config, len(record.results)
    done = max((one.generation + 1 for one in record.results), default=0)
    words = {
        "finished": "finished",
        "running": f"running, in generation {done or 1} of {config.generations}",
        "stopped": f"stopped in generation {done or 1}, can be resumed",
    }[record.state]
    if record.found_nothing:
        words = "ended without a model"
    return (
        f"{words} · {counted(number, 'candidate')} of {config.space} within "
        f"{limits_words(config)} · {record.manifest.get('device', 'no device yet')}"
    )
