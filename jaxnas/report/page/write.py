"""The page of a run, put together and written."""

from collections.abc import Callable, Sequence
from pathlib import Path

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
from jaxnas.report.page.tags import tag, text
from jaxnas.report.page.view import PageView, data_of
from jaxnas.results.record import Record
from jaxnas.storage.files import write_whole
from jaxnas.version import __version__
from jaxnas.wording import counted

_HERE = Path(__file__).parent
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
    name = record.folder.path.resolve().name
    links = [tag("a", text(title), href=f"#{at}") for at, (title, _) in found.items()]
    whole = [
        tag("section", tag("h2", text(title)), inside, id=at)
        for at, (title, inside) in found.items()
    ]
    body = [
        tag("a", "Skip to the results", href="#main", class_="skip"),
        _head(record, name),
        tag("nav", *links, aria_label="sections"),
        tag("main", tiles(view), winner_words(view), *whole, id="main"),
        tag("aside", id="card", hidden=True, aria_live="polite"),
        tag("div", id="tip", hidden=True, role="status"),
        tag("footer", text(f"Written by jaxnas {__version__}.")),
        data_of(view),
        f"<script>{_file('page.js')}</script>",
    ]
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # No icon is asked for, and nothing is loaded from anywhere.
            '<link rel="icon" href="data:,">',
            tag("title", text(f"{name}: jaxnas report")),
            f"<style>{_file('page.css')}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def write_page(
    path: Path,
    record: Record,
    completed: Sequence[Completion] = (),
    beside: Sequence[Record] = (),
) -> None:
    """Writes `page_of` in one step."""
    write_whole(path, page_of(record, completed, beside))


def _head(record: Record, name: str) -> str:
    config, number = record.config, len(record.results)
    done = max((one.generation + 1 for one in record.results), default=0)
    words = {
        "finished": "finished",
        "running": f"running, in generation {done or 1} of {config.generations}",
        "stopped": f"stopped in generation {done or 1}, can be resumed",
    }[record.state]
    line = (
        f"{words} · {counted(number, 'candidate')} of {config.space} within "
        f"{limits_words(config)} · {record.manifest.get('device', 'no device yet')}"
    )
    switch = tag("button", "Dark or light", type="button", id="theme", class_="theme")
    return tag("header", tag("h1", text(name)), tag("p", text(line)), switch)


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
