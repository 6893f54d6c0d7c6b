"""Charts as inline SVG: points of candidates on axes, lines, bars."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from arch.families import FAMILIES
from jaxnas.report.page.scales import Scale, figure
from jaxnas.report.page.tags import label, tag, text

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 16, 46  # pixels around the plot


class Dot(NamedTuple):
    """A candidate in a chart; `kind` is front | winner | behind."""

    id: int
    family: str
    x: float
    y: float
    kind: str


def color_of(family: str) -> str:
    """The class that colours a family."""
    return f"f{FAMILIES.index(family)}"


def picture(
    title: str, *inside: str, width: int = WIDTH, height: int = HEIGHT, **more: object
) -> str:
    """An SVG that a screen reader calls by its title."""
    attributes = {"role": "img", "aria_label": title, "class_": "chart"} | more
    return tag("svg", *inside, viewBox=f"0 0 {width} {height}", **attributes)


def captioned(chart: str, caption: str) -> str:
    """A chart with a sentence below it; the sentence is markup."""
    return tag("figure", chart, tag("figcaption", caption))


def plot_scales() -> tuple[tuple[int, int], tuple[int, int]]:
    """The pixels from begin to end of x, and of y."""
    return (LEFT, WIDTH - RIGHT), (HEIGHT - BOTTOM, TOP)


def axes(x: Scale, y: Scale, x_title: str, y_title: str) -> str:
    """The lines, ticks and titles of a plot's two axes."""
    parts = []
    for value in x.ticks():
        at = x.at(value)
        parts.append(tag("path", class_="grid", d=f"M{at:.1f} {y.begin}V{y.end}"))
        parts.append(label(at, y.begin + 16, figure(value), class_="tick mid"))
    for value in y.ticks():
        at = y.at(value)
        parts.append(tag("path", class_="grid", d=f"M{x.begin} {at:.1f}H{x.end}"))
        parts.append(label(x.begin - 6, at + 4, figure(value), class_="tick end"))
    corner = f"M{x.begin} {y.end}V{y.begin}H{x.end}"
    middle = (y.begin + y.end) / 2
    return "".join(
        [
            *parts,
            tag("path", class_="axis", d=corner),
            label((x.begin + x.end) / 2, y.begin + 36, x_title, class_="title mid"),
            label(
                0, 0, y_title, class_="title mid",
                transform=f"translate(14 {middle:.1f}) rotate(-90)",
            ),
        ]
    )  # fmt: skip


def dots(points: Iterable[Dot], x: Scale, y: Scale) -> str:
    """The candidates; the front above the others, the winner above all."""
    order = ("behind", "front", "winner")
    return "".join(
        tag(
            "circle",
            class_=f"p {color_of(dot.family)} {dot.kind}",
            data_id=dot.id,
            cx=x.at(dot.x),
            cy=y.at(dot.y),
            r=7 if dot.kind == "winner" else 5,
        )
        for dot in sorted(points, key=lambda dot: order.index(dot.kind))
    )


def limit_line(scale: Scale, other: Scale, value: float, upright: bool) -> str:
    """A limit across the plot, where it lies inside."""
    if not scale.low <= value <= scale.high:
        return ""
    at = scale.at(value)
    line = f"M{at:.1f} {other.begin}V{other.end}" if upright else ""
    line = line or f"M{other.begin} {at:.1f}H{other.end}"
    x, y = (at - 4, other.begin - 6) if upright else (other.end, at - 4)
    words = label(x, y, f"limit {figure(value)}", class_="tick end")
    return tag("path", class_="limit", d=line) + words


def path_of(points: Iterable[tuple[float, float]]) -> str:
    """A line through pixels."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def staircase(points: Sequence[tuple[float, float]]) -> str:
    """A line that stays level until the next point."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    parts += [f"H{x:.1f}V{y:.1f}" for x, y in points[1:]]
    return "".join(parts)


def family_legend(families: Iterable[str]) -> str:
    """Buttons that show and hide a family's candidates."""
    there = set(families)
    buttons = [
        tag(
            "button",
            tag("span", class_=f"dot {color_of(family)}"),
            text(family.replace("_", " ")),
            type="button",
            data_family=FAMILIES.index(family),
            aria_pressed="true",
        )
        for family in FAMILIES
        if family in there
    ]
    if len(buttons) < 2:
        return ""
    return tag("p", *buttons, class_="legend", role="group", aria_label="families")


class Bar(NamedTuple):
    """A part of a whole."""

    name: str
    value: float
    words: str


def bars(title: str, parts: Sequence[Bar]) -> str:
    """Horizontal bars from zero, each with its name and value."""
    row, name, width = 26, 190, 720
    most = max((part.value for part in parts), default=0.0) or 1.0
    room = width - name - 130
    shown = []
    for place, part in enumerate(parts):
        y, length = 6 + place * row, max(1.0, part.value / most * room)
        shown += [
            label(name - 8, y + 14, part.name, class_="tick end"),
            tag("rect", class_="bar", x=name, y=y, width=length, height=row - 8, rx=3),
            label(name + length + 8, y + 14, part.words, class_="tick"),
        ]
    height = 12 + row * len(parts)
    return picture(title, *shown, width=width, height=height, class_="chart broad")
