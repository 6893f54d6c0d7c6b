"""Which choices survived, and what each was worth."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jaxnas.report.page.charts import color_of, family_legend, path_of, picture
from jaxnas.report.page.front import measures
from jaxnas.report.page.scales import Scale, figure, scale_over
from jaxnas.report.page.tags import label, tag
from jaxnas.report.page.view import PageView
from jaxnas.results.effects import Gene, choice_of
from jaxnas.results.result import Scored

_ROW, _NAME, _BARS, _PLOT, _WIDE = 20, 210, 190, 300, 760  # pixels
_ACROSS, _HIGH, _LOW = 1100, 34, 380  # of the parallel coordinates
AXES = 8  # genes of the parallel coordinates, those that made the most difference


def genes(view: PageView) -> str:
    """Each choice: its share at first and among the best, and its worth."""
    if not view.genes:
        return tag("p", "Three candidates that differ are needed for this.")
    about = (
        "Worth is the next-token accuracy that a choice adds to the mean candidate, "
        "beside what the other genes explain (a ridge regression of main effects); "
        "the line covers 95 % of 400 resamples of the candidates. A search does not "
        "draw at random, so these are hints and no experiment. Bars: share of the "
        "first generation (pale), and of the best quarter (full)."
    )
    return tag("p", about) + _forest(view.genes)


def _forest(shown: Sequence[Gene]) -> str:
    choices = [choice for gene in shown for choice in gene.choices]
    ends = [end for choice in choices for end in (choice.low, choice.high, 0.0)]
    x = scale_over(ends, _WIDE - _PLOT, _WIDE - 12, log=False)
    parts, y = [], 30
    for value in x.ticks(5):
        at = x.at(value)
        words = f"{value:+.3g}" if value else "0"
        parts.append(label(at, 14, words, class_="tick mid"))
    for gene in shown:
        parts.append(label(0, y + 14, gene.name.replace("_", " "), class_="gene"))
        y += _ROW
        for choice in gene.choices:
            middle = y + _ROW / 2
            tip = (
                f"{gene.name} {choice.value}: {choice.number} candidates, worth "
                f"{choice.worth:+.4f} ({choice.low:+.4f} to {choice.high:+.4f}); "
                f"{choice.first:.0%} of the first generation, {choice.best:.0%} of "
                f"the best quarter"
            )
            first, best = (_BARS * share for share in (choice.first, choice.best))
            sure = "sure" if choice.low * choice.high > 0 else "unsure"
            parts.append(
                tag(
                    "g",
                    tag("title", tip),
                    tag("rect", class_="hit", x=0, y=y, width=_WIDE, height=_ROW),
                    label(_NAME - 8, middle + 4, choice.value, class_="tick end"),
                    tag("rect", class_="pale", x=_NAME, y=y + 3, width=first, height=6),
                    tag("rect", class_="bar", x=_NAME, y=y + 10, width=best, height=6),
                    tag(
                        "path", class_=f"reach {sure}",
                        d=f"M{x.at(choice.low):.1f} {middle}H{x.at(choice.high):.1f}",
                    ),
                    tag(
                        "circle", class_=f"mean {sure}",
                        cx=x.at(choice.worth), cy=middle, r=4,
                    ),
                )
            )  # fmt: skip
            y += _ROW
        y += 6
    zero = tag("path", class_="axis", d=f"M{x.at(0.0):.1f} 20V{y}")
    title = "what each choice of a gene was worth"
    return picture(title, zero, *parts, width=_WIDE, height=y + 6, class_="chart broad")


def parallel(view: PageView) -> str:
    """A line a candidate, over the genes that matter and the figures."""
    if len(view.drawn) < 2 or not view.genes:
        return tag("p", "Nothing to compare yet.")
    columns = [*_gene_axes(view), *_figure_axes(view)]
    places = Scale(0, len(columns) - 1, 70, _ACROSS - 60)
    parts: list[str] = []
    lines: list[list[tuple[float, float]]] = [[] for _ in view.drawn]
    for place, column in enumerate(columns):
        at = places.at(place)
        parts.append(tag("path", class_="axis", d=f"M{at:.1f} {_HIGH}V{_LOW}"))
        parts.append(label(at, 16, column.title, class_="title mid"))
        parts += [mark(at) for mark in column.marks]
        for line, y in zip(lines, column.heights, strict=True):
            if y is not None:
                line.append((at, y))
    drawn = [
        tag(
            "path",
            class_=f"pc {color_of(one.config.arch_type)} {view.kind(one.id)}",
            data_id=one.id,
            d=path_of(line),
        )
        for one, line in zip(view.drawn, lines, strict=True)
    ]
    title = "parallel coordinates of genes and figures"
    chart = picture(
        title, *drawn, *parts, width=_ACROSS, height=_LOW + 20,
        class_="chart broad wider points", tabindex="0",
    )  # fmt: skip
    about = (
        "Choose values to keep only the candidates that have them, here and in every "
        "chart; a line misses the axes of genes that its family does not read."
    )
    clear = tag("button", "Show all", type="button", id="clear")
    legend = family_legend(one.config.arch_type for one in view.drawn)
    return tag("p", about) + legend + tag("p", clear) + tag("div", chart, class_="wide")


class _Axis(NamedTuple):
    """An upright axis: its ticks, made for an x, and each candidate's y, if any."""

    title: str
    marks: Sequence[Callable[[float], str]]
    heights: Sequence[float | None]


def _gene_axes(view: PageView) -> Iterator[_Axis]:
    """Of the genes that made the most difference; their values can be chosen."""
    for gene in view.genes[:AXES]:
        words = [choice.value for choice in gene.choices]
        y = Scale(0, max(1, len(words) - 1), _LOW - 12, _HIGH + 12)
        marks = [
            functools.partial(_choice, gene.name, word, y.at(row))
            for row, word in enumerate(words)
        ]
        rows = [_row(one, gene.name, words) for one in view.drawn]
        heights = [None if row is None else y.at(row) for row in rows]
        yield _Axis(gene.name.replace("_", " "), marks, heights)


def _figure_axes(view: PageView) -> Iterator[_Axis]:
    """Of accuracy, size and latency."""
    for measure in measures(view):
        values = [measure.of(one) for one in view.drawn]
        y = scale_over(values, _LOW, _HIGH)
        marks = [
            functools.partial(_tick, y.at(value), figure(value)) for value in y.ticks(5)
        ]
        name = measure.name.split("_")[0]
        yield _Axis(name, marks, [y.at(value) for value in values])


def _tick(y: float, words: str, x: float) -> str:
    return label(x + 6, y + 4, words, class_="tick")


def _row(one: Scored, name: str, words: Sequence[str]) -> int | None:
    said = choice_of(one.config, name)
    return words.index(said) if said in words else None


def _choice(gene: str, word: str, y: float, x: float) -> str:
    """A value that can be chosen."""
    shown = word.replace("_attention", "").replace("_transformer", "").replace("_", " ")
    width = 8 + 6.2 * len(shown)
    return tag(
        "g",
        tag("rect", x=x - width / 2, y=y - 9, width=width, height=18, rx=4),
        label(x, y + 4, shown, class_="tick mid"),
        class_="choice",
        role="button",
        tabindex="0",
        aria_pressed="false",
        aria_label=f"{gene} {word}",
        data_gene=gene,
        data_value=word,
    )
