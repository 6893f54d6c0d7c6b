"""How the search went on: the best so far, the front, the phases, and the time."""

from collections.abc import Sequence

import numpy as np

from jaxnas.clock import clock_words
from jaxnas.report.page.charts import (
    HEIGHT,
    WIDTH,
    Bar,
    axes,
    bars,
    captioned,
    color_of,
    dots,
    path_of,
    picture,
    plot_scales,
    staircase,
)
from jaxnas.report.page.scales import Scale, scale_over
from jaxnas.report.page.tags import label, table, tag, text
from jaxnas.report.page.view import PageView
from jaxnas.results.growth import growths
from jaxnas.results.record import Record
from jaxnas.results.result import scored


def history(view: PageView) -> str:
    """Accuracy of each candidate, and the hypervolume of the front after it."""
    if not view.found:
        return tag("p", "Nothing to show yet.")
    if len(view.found) < 3:
        few = tag("p", "Three candidates are needed for this.")
        return few + (_volumes(view) if view.beside else "") + _generations(view)
    charts = tag("div", _accuracies(view), _volumes(view), class_="grid2")
    return charts + _generations(view)


def _places(view: PageView) -> Scale:
    return scale_over([1, max(2, len(view.found))], *plot_scales()[0], log=False)


def _accuracies(view: PageView) -> str:
    x, (_, ys) = _places(view), plot_scales()
    order = {one.id: place for place, one in enumerate(view.found, 1)}
    values = [one.metrics.accuracy for one in view.found]
    y = scale_over(values, *ys)
    best = np.maximum.accumulate(values)
    line = staircase([(x.at(n), y.at(v)) for n, v in enumerate(best, 1)])
    places = [(float(order[one.id]), one.metrics.accuracy) for one in view.drawn]
    chart = picture(
        "accuracy of each candidate, in the order of the search",
        axes(x, y, "candidates so far", "accuracy on validation"),
        _cuts(view, x, y),
        tag("path", class_="line", d=line),
        dots(view.dots(places), x, y),
        class_="chart points",
        tabindex="0",
    )
    return captioned(
        chart, "The line is the best so far; upright lines part generations."
    )


def _volumes(view: PageView) -> str:
    runs = [view.record, *view.beside]
    values, *others = growths([one.results for one in runs])
    most = max(map(len, (values, *others)))
    x = scale_over([1, max(2, most)], *plot_scales()[0], log=False)
    y = scale_over(np.concatenate([values, *others]), *plot_scales()[1], zero=True)
    first = sum(one.generation == view.found[0].generation for one in view.found)
    words = "Of accuracy, size and latency, each from the worst candidate (0) to the "
    words += "best (1)" + (" of all these runs." if others else ".")
    alone = []
    if first < len(values):
        level = y.at(float(values[first - 1]))
        alone = [
            tag("path", class_="limit", d=f"M{x.begin} {level:.1f}H{x.end}"),
            label(x.end, level - 5, "first generation alone", class_="tick end"),
        ]
        words += " The first generation was asked for before anything was known."
    chart = picture(
        "hypervolume of the front after each candidate",
        axes(x, y, "candidates so far", "hypervolume"),
        _cuts(view, x, y),
        *alone,
        *[
            _curve(own, x, y, "line other", one.folder.path.resolve().name)
            for own, one in zip(others, view.beside, strict=True)
        ],
        _curve(values, x, y, "line", "this run" if others else ""),
    )
    return captioned(chart, words)


def _curve(values: np.ndarray, x: Scale, y: Scale, kind: str, name: str) -> str:
    """A run's hypervolume, with its name at the end."""
    if not len(values):
        return ""
    line = staircase([(x.at(n), y.at(float(v))) for n, v in enumerate(values, 1)])
    end = x.at(len(values)), y.at(float(values[-1])) + 14
    return tag("path", class_=kind, d=line) + label(*end, name, class_="tick end")


def _cuts(view: PageView, x: Scale, y: Scale) -> str:
    """Where generations begin."""
    numbers = [one.generation for one in view.found]
    places = [n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1]]
    if len(places) > 40:
        return ""
    return "".join(
        tag("path", class_="cut", d=f"M{x.at(n + 0.5):.1f} {y.begin}V{y.end}")
        for n in places
    )


def _generations(view: PageView) -> str:
    summary = view.record.summary
    if summary is None:
        return ""
    rows = [
        [str(one["generation"] + 1), str(one["new"])]
        + (
            [f"{one[key]:.4f}" for key in ("best", "mean", "std")]
            if one["new"]
            else ["-"] * 3
        )
        for one in summary["search"]["generations"]
    ]
    header = ("generation", "new", "best fitness", "mean", "deviation")
    inside = table(header, rows, numbers=5)
    return tag("details", tag("summary", "Every generation in figures"), inside)


def phases(view: PageView) -> str:
    """Ranks from phase to phase, each candidate a line."""
    record = view.record
    ranks = _ranks(record)
    if len(ranks) < 2:
        return tag("p", "One phase: no candidate was trained again for longer.")
    parts, top, bottom = [], 40, HEIGHT - 16
    most = max(max(own.values()) for own in ranks.values())
    columns = scale_over(range(len(ranks)), 110, WIDTH - 110, log=False)
    rows = Scale(1, max(2, most), top, bottom)
    families = {one.id: one.config.arch_type for one in scored(record.results)}
    for place, name in enumerate(ranks):
        at = columns.at(place)
        parts.append(label(at, 18, f"phase {name}", class_="title mid"))
        parts.append(tag("path", class_="axis", d=f"M{at:.1f} {top}V{bottom}"))
    for identity in families:
        own = [
            (columns.at(place), rows.at(column[identity]))
            for place, column in enumerate(ranks.values())
            if identity in column
        ]
        color = f"{color_of(families[identity])} {view.kind(identity)}"
        if len(own) > 1:
            parts.append(
                tag("path", class_=f"pc {color} kept", data_id=identity, d=path_of(own))
            )
        for x, y in own:
            parts.append(
                tag("circle", class_=f"p {color}", data_id=identity, cx=x, cy=y, r=4)
            )
    chart = picture(
        "ranks by accuracy in each phase", *parts,
        class_="chart points", tabindex="0",
    )  # fmt: skip
    said = "Rank by accuracy, the best above; lines are those that trained on."
    return captioned(chart, said) + _correlations(record)


def _ranks(record: Record) -> dict[str, dict[int, int]]:
    """Phase -> id -> rank by accuracy, from 1."""
    first = next(iter(record.config.named_phases()))
    by_phase = {first: scored(record.results)}
    for result in scored(record.later):
        by_phase.setdefault(str(result.phase), []).append(result)
    return {
        name: {
            one.id: rank
            for rank, one in enumerate(
                sorted(found, key=lambda one: -one.metrics.accuracy), 1
            )
        }
        for name, found in by_phase.items()
        if found
    }


def _correlations(record: Record) -> str:
    if record.summary is None:
        return ""
    rows = [
        [
            text(step["from"]),
            text(step["to"]),
            str(step["candidates"]),
            str(step["promoted"]),
            "-" if step["correlation"] is None else f"{step['correlation']:.2f}",
        ]
        for step in record.summary["trust"]["phases"]
    ]
    header = ("from", "to", "candidates", "promoted", "rank correlation")
    return table(header, rows, numbers=3)


# As `Progress.stage` records them.
STAGES = {
    "phases": "later phases",
    "latency": "measuring latency",
    "finish": "training the winner on, beside it the obvious models",
    "repeats": "the winner from other seeds",
}


def times(record: Record) -> str:
    """Where the time went, as the run recorded it."""
    seconds: dict[str, float] = {}
    for entry in record.timings:
        if "stage" in entry:
            name = str(entry["stage"])
            seconds[name] = seconds.get(name, 0.0) + float(entry["seconds"])
    plans = [entry for entry in record.timings if "buckets" in entry]
    parts = [
        Bar(name, value, f"{clock_words(value)}, {value / sum(seconds.values()):.0%}")
        for name, value in seconds.items()
        if value >= 0.5
    ]
    chart = bars("minutes of each part of the run", parts) if parts else ""
    said = [f"{name}: {STAGES[name]}" for name in seconds if name in STAGES]
    legend = tag("p", text("; ".join(said)) + ".", class_="small") if said else ""
    if not plans:
        return chart + legend or tag("p", "No time is recorded yet.")
    return chart + legend + _plans(plans)


def _plans(plans: Sequence[dict]) -> str:
    rows = [
        [
            str(number),
            str(plan["buckets"]),
            f"{plan['predicted']:.0f}",
            f"{plan['seconds']:.0f}",
            f"{plan['seconds'] / max(plan['predicted'], 1e-9):.1f}",
        ]
        for number, plan in enumerate(plans, 1)
    ]
    header = ("plan", "groups", "predicted s", "took s", "ratio")
    said = "What each plan of trainings was predicted to take, and took"
    return tag("details", tag("summary", said), table(header, rows, numbers=5))
