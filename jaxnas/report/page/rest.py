"""Latency, failures, drawings, every candidate, and how to go on."""

import collections
from collections.abc import Iterator, Sequence

from jaxnas.export.formats import READERS, format_for
from jaxnas.latency.finalists import Finalist
from jaxnas.report.drawing import drawing_svg
from jaxnas.report.page.charts import (
    HEIGHT,
    WIDTH,
    axes,
    captioned,
    picture,
    plot_scales,
)
from jaxnas.report.page.scales import scale_over
from jaxnas.report.page.tags import table, tag, text
from jaxnas.report.page.view import BEST, PageView
from jaxnas.report.tables import mebibytes, millions
from jaxnas.report.words import describe
from jaxnas.results.ranking import top_results
from jaxnas.results.record import Record
from jaxnas.wording import command

TRACEBACK = 4000  # characters of the failures' log, the last ones


def latency(view: PageView) -> str:
    """Predicted beside measured milliseconds, where some were measured."""
    summary = view.record.summary
    rows = summary["latency"]["finalists"] if summary is not None else []
    if not rows:
        return tag("p", "No latency was measured: --measure-top says of how many.")
    finalists = [Finalist.from_dict(row) for row in rows]
    cells = []
    for one in finalists:
        for name, predicted in one.predicted.items():
            measured = getattr(one.measured, name)
            cells.append(
                [
                    view.link(one.id),
                    name,
                    f"{predicted:.3f}",
                    f"{measured.median:.3f}",
                    f"{measured.least:.3f} to {measured.greatest:.3f}",
                    f"{predicted / measured.median - 1:+.0%}",
                ]
            )
    header = ("id", "", "predicted ms", "measured ms", "over the rounds", "error")
    charts = [_measured(finalists, name) for name in ("prefill", "decode")]
    said = "Prefill reads 128 tokens and draws one; decode draws each token after."
    whole = tag("div", *charts, class_="grid2") if len(finalists) > 2 else ""
    return tag("p", said) + whole + table(header, cells, numbers=4)


def _measured(finalists: list[Finalist], name: str) -> str:
    """A point a model, its rounds as a line; on the diagonal both are the same."""
    pairs = [(one.predicted[name], getattr(one.measured, name)) for one in finalists]
    ends = [one for p, m in pairs for one in (p, m.least, m.greatest)]
    xs, ys = plot_scales()
    x, y = scale_over(ends, *xs, log=False), scale_over(ends, *ys, log=False)
    low, high = min(ends), max(ends)
    line = f"M{x.at(low):.1f} {y.at(low):.1f}L{x.at(high):.1f} {y.at(high):.1f}"
    parts = [tag("path", class_="limit", d=line)]
    for predicted, found in pairs:
        at, ends_ = x.at(predicted), (y.at(found.least), y.at(found.greatest))
        reach = f"M{at:.1f} {ends_[0]:.1f}V{ends_[1]:.1f}"
        parts.append(tag("path", class_="reach sure", d=reach))
        parts.append(
            tag("circle", class_="mean sure", cx=at, cy=y.at(found.median), r=4)
        )
    titles = f"predicted {name}, ms", f"measured {name}, ms"
    chart = picture(
        f"{titles[1]} against {titles[0]}", axes(x, y, *titles), *parts,
        width=WIDTH, height=HEIGHT,
    )  # fmt: skip
    return captioned(chart, "On the dashed line both are the same.")


def failures(record: Record) -> str:
    """What failed or was skipped, and why."""
    bad = [one for one in [*record.results, *record.later] if one.status != "ok"]
    if not bad:
        return tag("p", "None: every candidate was trained and scored.")
    counts = collections.Counter((one.status, str(one.reason)) for one in bad)
    rows = [
        [text(status), text(reason), str(number)]
        for (status, reason), number in counts.most_common()
    ]
    parts = [table(("", "reason", "candidates"), rows, numbers=1)]
    which = [
        [f"#{one.id}", text(describe(one.config)), text(one.reason)] for one in bad
    ]
    inside = table(("id", "model", "reason"), which[:BEST])
    parts.append(tag("details", tag("summary", "Which they were"), inside))
    if record.failures:
        log = tag("pre", text(record.failures[-TRACEBACK:]))
        parts.append(tag("details", tag("summary", "The last tracebacks"), log))
    return "".join(parts)


def drawings(view: PageView) -> str:
    """The best architectures, drawn."""
    winner = None if view.best is None else view.best.id
    best = top_results(view.record.last, view.record.config.top_k, winner)
    cards = [
        tag(
            "figure",
            drawing_svg(one.config),
            tag(
                "figcaption",
                f"{rank}. ",
                view.link(one.id),
                f" accuracy {one.metrics.accuracy:.4f}, "
                f"{mebibytes(one.costs.size_mib)} MiB, {one.costs.latency_ms:.2f} ms",
            ),
        )
        for rank, one in enumerate(best, 1)
    ]
    if not cards:
        return tag("p", "Nothing to draw yet.")
    about = "A box is as wide as the channels that it writes."
    return tag("p", about) + tag("div", *cards, class_="drawings")


def candidates(view: PageView) -> str:
    """Every candidate that is drawn, the best first; sorted by any column."""
    ranked = top_results(view.drawn, len(view.drawn))
    rows = [
        [
            view.link(one.id),
            text(describe(one.config)),
            str(one.generation + 1),
            millions(one.costs.stored_parameters),
            f"{one.costs.size_mib:.3f}",
            f"{one.costs.latency_ms:.3f}",
            f"{one.metrics.accuracy:.4f}",
            f"{one.metrics.bits_per_byte:.3f}",
            f"{one.fitness:.4f}",
            *(f"{value:.4g}" for value in view.own(one).values()),
        ]
        for one in ranked
    ]
    kinds = [view.kind(one.id) for one in ranked]
    header = (
        "id", "model", "generation", "params", "MiB", "ms", "accuracy", "bits/byte",
        "fitness", *view.record.objectives,
    )  # fmt: skip
    about = "After the first phase. A column's name sorts by it."
    return tag("p", about) + table(
        header, rows, numbers=len(header) - 2, identity="all", classes=kinds
    )


def next_steps(view: PageView) -> str:
    """Commands that go on from here."""
    rows = [
        [tag("code", text(command(*words))), text(about)]
        for words, about in _commands(view)
    ]
    return table(("", ""), rows)


def _commands(view: PageView) -> Iterator[tuple[Sequence[object], str]]:
    """Their words, and what each is for."""
    record, run = view.record, view.record.folder.path
    if record.state != "finished" and not record.found_nothing:
        yield (
            ("--resume", run, *record.config.code_flags),
            "goes on, once nobody works on it",
        )
        yield ("status", run), "how far it is"
    if record.summary is not None and view.best is not None:
        model = record.folder.model
        yield ("generate", model, "--prompt", "def "), "text from the winner"
        yield ("serve", run), "completions in an editor"
        if (fitting := format_for(view.best.config)) is not None:
            out = () if fitting == "gguf" else ("--out", "NEW")
            yield ("export", model, "--format", fitting, *out), READERS[fitting]
        long = ("train", run, "--fresh", "--budget", "4h")
        yield long, "the winner, trained for long"
    yield ("show", run), "the best so far, part by part"
