"""A page that opens without a network: its sections, its look and its script."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxnas.report.page.tags import tag, text
from jaxnas.storage.jsonl import Json
from jaxnas.version import __version__

_HERE = Path(__file__).parent


def document(
    name: str,
    line: str,
    lead: str,
    sections: Mapping[str, tuple[str, str]],
    data: Json,
) -> str:
    """The whole page.

    Args:
      name: its title.
      line: what is said below it.
      lead: markup that comes before the first section.
      sections: title and markup of each, by its anchor.
      data: what the script knows: `candidates` by their ids, each with `words`,
        `figures` (lines), the number of its `family`, `config` but for what is in
        `shared`, and its `choices` of the `genes`; and, if there is one, the command
        that `show`s a candidate.
    """
    switch = tag("button", "Dark or light", type="button", id="theme", class_="theme")
    links = [
        tag("a", text(title), href=f"#{at}") for at, (title, _) in sections.items()
    ]
    whole = [
        tag("section", tag("h2", text(title)), inside, id=at)
        for at, (title, inside) in sections.items()
    ]
    # Nothing inside can end the element.
    known = json.dumps(data).replace("<", "\\u003c")
    body = [
        tag("a", "Skip to the results", href="#main", class_="skip"),
        tag("header", tag("h1", text(name)), tag("p", text(line)), switch),
        tag("nav", *links, aria_label="sections"),
        tag("main", lead, *whole, id="main"),
        tag("aside", id="card", hidden=True, aria_live="polite"),
        tag("div", id="tip", hidden=True, role="status"),
        tag("footer", text(f"Written by jaxnas {__version__}.")),
        f'<script type="application/json" id="data">{known}</script>',
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


def tiles_of(shown: Iterable[tuple[str, str, str]]) -> str:
    """A few figures in large: what each is, its value, and a word below it."""
    return tag(
        "div",
        *[
            tag(
                "div",
                tag("span", text(name), class_="what"),
                tag("strong", text(value)),
                tag("span", text(below), class_="small"),
            )
            for name, value, below in shown
        ],
        class_="tiles",
    )


def shared_among(rows: list[Json]) -> Json:
    """The values that all rows have alike."""
    first = rows[0] if rows else {}
    return {
        name: value
        for name, value in first.items()
        if all(row[name] == value for row in rows)
    }


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
