"""HTML and SVG as text."""

import html
from collections.abc import Iterable, Sequence

_VOID = {"meta", "br", "input"}


def tag(name: str, *inside: str, **attributes: object) -> str:
    """An element; what is inside is markup already, attributes are escaped.

    An attribute's underscores are hyphens, one behind its name is dropped (`class_`);
    of None and False the attribute is absent, of True it has no value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{html.escape(_said(value))}"')
    opening = f"<{' '.join(words)}>"
    return opening if name in _VOID else f"{opening}{''.join(inside)}</{name}>"


def text(value: object) -> str:
    """Text as markup."""
    return html.escape(str(value), quote=False)


def _said(value: object) -> str:
    return (
        f"{value:.2f}".rstrip("0").rstrip(".")
        if isinstance(value, float)
        else str(value)
    )


def label(x: float, y: float, words: object, **attributes: object) -> str:
    """A text in an SVG."""
    return tag("text", text(words), x=float(x), y=float(y), **attributes)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: int = 0,
    identity: str | None = None,
    classes: Sequence[str | None] = (),
) -> str:
    """A table that scrolls where the page is too narrow for it.

    Args:
      header: of the columns.
      rows: of markup.
      numbers: how many of the last columns are figures.
      identity: of the element.
      classes: of each row; none if empty.
    """
    words = len(header) - numbers

    def cells(kind: str, row: Sequence[str]) -> str:
        return "".join(
            tag(
                kind,
                cell,
                class_="n" if place >= words else None,
                scope="col" if kind == "th" else None,
            )
            for place, cell in enumerate(row)
        )

    body = [
        tag("tr", cells("td", row), class_=classes[place] if classes else None)
        for place, row in enumerate(rows)
    ]
    head = tag("thead", tag("tr", cells("th", [text(name) for name in header])))
    whole = tag("table", head, tag("tbody", *body), id=identity)
    return tag("div", whole, class_="wide")
