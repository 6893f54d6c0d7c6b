"""Which choices survived, and what each was worth."""

from collections.abc import Sequence

from arch.families import FAMILIES
from jaxnas.report.page.charts import color_of, family_legend, path_of, picture
from jaxnas.report.page.front import measures
from jaxnas.report.page.scales import Scale, figure, scale_over
from jaxnas.report.page.tags import label, tag
from jaxnas.report.page.view import View
from jaxnas.results.effects import Gene, choice_of
from jaxnas.results.result import Scored

_ROW, _NAME, _BARS, _PLOT, _WIDE = 20, 210, 190, 300, 760  # pixels
AXES = 8  # genes of the parallel coordinates, those that made the most difference


def genes(view: View) -> str:
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


def parallel(view: View) -> str:
    """A line a candidate, over the genes that matter and the figures."""
    if len(view.drawn) < 2 or not view.genes:
        return tag("p", "Nothing to compare yet.")
    names = [gene.name for gene in view.genes[:AXES]]
    columns = [_categories(view, gene) for gene in view.genes[:AXES]]
    height, top, bottom, wide = 400, 34, 380, 1100
    figures = [
        ([m.of(one) for one in view.drawn], m.title.split(",")[0].split(" ")[0])
        for m in measures(view)
    ]
    places = Scale(0, len(columns) + len(figures) - 1, 70, wide - 60)
    parts = []
    for place, name in enumerate([*names, *(title for _, title in figures)]):
        at = places.at(place)
        parts.append(tag("path", class_="axis", d=f"M{at:.1f} {top}V{bottom}"))
        words = name.replace("_", " ")
        parts.append(label(at, 16, words, class_="title mid"))
    lines: list[list[tuple[float, float]]] = [[] for _ in view.drawn]
    for place, (choices, rows) in enumerate(columns):
        y = Scale(0, max(1, len(choices) - 1), bottom - 12, top + 12)
        at = places.at(place)
        for number, word in enumerate(choices):
            parts.append(_choice(names[place], word, at, y.at(number)))
        for line, row in zip(lines, rows, strict=True):
            if row is not None:
                line.append((at, y.at(row)))
    for place, (values, _) in enumerate(figures, len(columns)):
        y, at = scale_over(values, bottom, top), places.at(place)
        for tick in y.ticks(5):
            parts.append(label(at + 6, y.at(tick) + 4, figure(tick), class_="tick"))
        for line, value in zip(lines, values, strict=True):
            line.append((at, y.at(value)))
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
        title, *drawn, *parts, width=wide, height=height,
        class_="chart broad wider points", tabindex="0",
    )  # fmt: skip
    about = (
        "Choose values to keep only the candidates that have them, here and in every "
        "chart; a line misses the axes of genes that its family does not read."
    )
    clear = tag("button", "Show all", type="button", id="clear")
    legend = family_legend(one.config.arch_type for one in view.drawn)
    return tag("p", about) + legend + tag("p", clear) + tag("div", chart, class_="wide")


def _categories(view: View, gene: Gene) -> tuple[list[str], list[int | None]]:
    """The values in words, and each drawn candidate's, None where it has none."""
    words = [choice.value for choice in gene.choices]
    return words, [_row(one, gene.name, words) for one in view.drawn]


def _row(one: Scored, name: str, words: Sequence[str]) -> int | None:
    said = choice_of(one.config, name)
    return words.index(said) if said in words else None


def _choice(gene: str, word: str, x: float, y: float) -> str:
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
        data_value=FAMILIES.index(word) if gene == "arch_type" else word,
    )
