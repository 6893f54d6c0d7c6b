"""The front: accuracy against size and latency, in two and in three dimensions."""

import itertools
import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxnas.report.page.charts import (
    HEIGHT,
    WIDTH,
    axes,
    captioned,
    color_of,
    dots,
    family_legend,
    limit_line,
    picture,
    plot_scales,
)
from jaxnas.report.page.scales import Scale, scale_over
from jaxnas.report.page.tags import label, tag, text
from jaxnas.report.page.view import PageView
from jaxnas.results.result import Scored

TURN, TILT = 0.7, 0.35  # radians, as the cube is seen at first
_EDGE, _MIDDLE = 150.0, (WIDTH / 2, HEIGHT / 2)  # pixels


class Measure(NamedTuple):
    """A figure of a candidate."""

    title: str
    name: str
    limit: float | None = None

    def of(self, one: Scored) -> float:
        """Its value."""
        if self.name == "accuracy":
            return one.metrics.accuracy
        return float(getattr(one.costs, self.name))


def measures(view: PageView) -> tuple[Measure, Measure, Measure]:
    """Accuracy, size, latency, with the limits of the run."""
    config = view.record.config
    kind = "" if config.latency == "estimate" else f"{config.latency} "
    return (
        Measure("accuracy on validation", "accuracy"),
        Measure("size, MiB", "size_mib", config.max_size),
        Measure(f"{kind}latency, ms", "latency_ms", config.max_latency),
    )


def front(view: PageView) -> str:
    """Three charts of two figures each, and one of all three."""
    if not view.drawn:
        return tag("p", "Nothing to show yet.")
    if len(view.found) < 2:
        return tag("p", "One candidate: there is none to set it against.")
    accuracy, size, latency = measures(view)
    charts = [
        _flat(view, size, accuracy),
        _flat(view, latency, accuracy),
        _flat(view, size, latency),
        _cube(view, (size, latency, accuracy)),
    ]
    legend = family_legend(one.config.arch_type for one in view.drawn)
    aims = ", ".join(["accuracy", "size", "latency", *view.record.objectives])
    shape = text(
        f"Filled points are on the Pareto front of {aims} after the first phase; the "
        "ring is the winner. Choose a point for its config."
    )
    left = len(view.found) - len(view.drawn)
    cut = f" {left:,} others behind the front are not drawn." if left else ""
    return tag("p", shape + cut) + legend + tag("div", *charts, class_="grid2")


def _flat(view: PageView, across: Measure, up: Measure) -> str:
    places = [(across.of(one), up.of(one)) for one in view.drawn]
    xs, ys = plot_scales()
    x = scale_over([place[0] for place in places], *xs)
    y = scale_over([place[1] for place in places], *ys)
    limits = [
        limit_line(scale, other, measure.limit, upright)
        for scale, other, measure, upright in (
            (x, y, across, True),
            (y, x, up, False),
        )
        if measure.limit is not None
    ]
    title = f"{up.title} against {across.title}"
    return tag(
        "figure",
        picture(
            title,
            axes(x, y, across.title, up.title),
            *limits,
            dots(view.dots(places), x, y),
            class_="chart points",
            tabindex="0",
        ),
    )


def project(
    point: Sequence[float], turn: float = TURN, tilt: float = TILT
) -> tuple[float, float]:
    """[-1, 1]^3 -> pixels: turned around the upright axis, then tilted forward."""
    x, y, z = point
    across = x * math.cos(turn) + y * math.sin(turn)
    away = -x * math.sin(turn) + y * math.cos(turn)
    up = z * math.cos(tilt) + away * math.sin(tilt)
    return _MIDDLE[0] + _EDGE * across / 1.35, _MIDDLE[1] - _EDGE * up / 1.25


def _cube(view: PageView, three: Sequence[Measure]) -> str:
    columns = [[measure.of(one) for one in view.drawn] for measure in three]
    scales = [scale_over(column, -1.0, 1.0) for column in columns]
    parts = [*_edges(), *_titles(three, scales)]
    order = ("behind", "front", "winner")
    ranked = sorted(
        zip(view.drawn, zip(*columns, strict=True), strict=True),
        key=lambda pair: order.index(view.kind(pair[0].id)),
    )
    for one, values in ranked:
        place = [scale.at(v) for scale, v in zip(scales, values, strict=True)]
        kind = view.kind(one.id)
        x, y = project(place)
        parts.append(
            tag(
                "circle",
                class_=f"p {color_of(one.config.arch_type)} {kind}",
                data_id=one.id,
                data_at=_json(place),
                cx=x,
                cy=y,
                r=7 if kind == "winner" else 5,
            )
        )
    title = "size, latency and accuracy in three dimensions"
    chart = picture(
        title, *parts, class_="chart points cube", tabindex="0",
        data_turn=TURN, data_tilt=TILT,
    )  # fmt: skip
    return captioned(chart, "Drag to turn it, or hold Shift with the arrow keys.")


def _edges() -> list[str]:
    """The twelve edges of the cube."""
    parts = []
    corners = list(itertools.product((-1.0, 1.0), repeat=3))
    for one, other in itertools.combinations(corners, 2):
        if sum(a != b for a, b in zip(one, other, strict=True)) == 1:
            (x1, y1), (x2, y2) = project(one), project(other)
            path = f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"
            at = _json([*one, *other])
            parts.append(tag("path", class_="grid", d=path, data_line=at))
    return parts


def _titles(three: Sequence[Measure], scales: Sequence[Scale]) -> list[str]:
    """Each axis's title in the middle of an edge, its ends in words."""
    parts = []
    places = (
        [(0.0, -1.25, -1.1), (-0.95, -1.15, -1.1), (0.95, -1.15, -1.1)],
        [(1.3, 0.0, -1.1), (1.15, -0.95, -1.1), (1.15, 0.95, -1.1)],
        [(-1.4, -1.25, 0.0), (-1.15, -1.1, -0.95), (-1.15, -1.1, 0.95)],
    )
    for measure, scale, (middle, low, high) in zip(three, scales, places, strict=True):
        words = (measure.name.split("_")[0], f"{scale.low:.3g}", f"{scale.high:.3g}")
        for at, said in zip((middle, low, high), words, strict=True):
            x, y = project(at)
            kind = "title mid" if at is middle else "tick mid"
            parts.append(label(x, y, said, class_=kind, data_at=_json(at)))
    return parts


def _json(values: Sequence[float]) -> str:
    return json.dumps([round(value, 3) for value in values])
