"""A plot of a Pareto front: the objectives in pairs, limits, the best by number."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

_MOST_DOTS = 20_000  # of each cloud
_DPI = 120
_STEPS = (1, 2, 5)  # of ticks, in each power of ten
_RADII, _ANGLES = (12, 20, 28, 36, 48, 60), 16  # pixels: where a number may stand
_BOX = (7.0, 6.0)  # half of a number's width and height, pixels


class Axis(NamedTuple):
    """An objective of a plot."""

    title: str
    limits: tuple[float, ...] = ()  # drawn as lines; infinite ones are not


class Clouds(NamedTuple):
    """Points of a plot, f[N, K] each, a column for each axis; values above 0."""

    every: np.ndarray
    kept: np.ndarray  # of them, those that keep the limits
    front: np.ndarray
    stars: np.ndarray  # numbered from 1
    nearest: np.ndarray  # to the limits, where none keeps them


def plot_front(path: Path, clouds: Clouds, axes: Sequence[Axis]) -> bool:
    """All shapes, the front, limits as lines, and the best as numbered stars.

    Args:
      path: of the PNG.
      clouds: see `Clouds`.
      axes: of its columns; one axis alone is drawn against itself.

    Returns:
      False if there is nothing to draw, and nothing was written.
    """
    if not len(clouds.every):
        return False
    pairs = list(itertools.combinations(range(len(axes)), 2)) or [(0, 0)]
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.9 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for panel in grid.flat[len(pairs) :]:
        panel.set_visible(False)
    for panel, (x, y) in zip(grid.flat, pairs, strict=False):
        _draw(panel, clouds, axes, x, y)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels)
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([40])  # a dot of the cloud is hardly seen
    figure.savefig(path, dpi=_DPI)  # lays out: numbers need to know where stars are
    for panel, (x, y) in zip(grid.flat, pairs, strict=False):
        _number(panel, clouds.stars[:, [x, y]])
    figure.set_layout_engine("none")
    figure.savefig(path, dpi=_DPI)
    return True


def plain_number(value: float) -> str:
    """1500000000 -> 1.5B; 0.02 -> 0.02; never a power of ten."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e4)):
        if value >= size:
            return f"{value / (1e3 if unit == 'K' else size):.4g}{unit}"
    return f"{value:.4g}" if value >= 1e-4 else f"{value:.8f}".rstrip("0")


def ticks(least: float, most: float, number: int = 5) -> list[float]:
    """Round numbers in a range of a logarithmic axis, two to about `number`."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    for steps in (_STEPS, _STEPS[:1]):
        found = [
            step * 10.0**power
            for power in powers
            for step in steps
            if least <= step * 10.0**power <= most
        ]
        if 3 <= len(found) <= number + 1:
            return found
    if len(found) > number:
        return found[:: math.ceil(len(found) / number)]
    even = MaxNLocator(number).tick_values(least, most)
    return [float(value) for value in even if least <= value <= most]


def _draw(panel: Axes, clouds: Clouds, axes: Sequence[Axis], x: int, y: int) -> None:
    few = len(clouds.every) <= 400
    for points, size, color, label in (
        (clouds.every, 10 if few else 2, "0.75", "shapes"),
        (clouds.kept, 10 if few else 2, "tab:blue", "within the limits"),
        (clouds.front, 14 if few else 5, "tab:red", "Pareto front"),
    ):
        if len(points):
            shown = points[:: max(1, len(points) // _MOST_DOTS)]
            panel.scatter(shown[:, x], shown[:, y], s=size, color=color, label=label)
    for points, marker, color, label in (
        (clouds.stars, "*", "gold", "the best, by number"),
        (clouds.nearest, "X", "tab:orange", "nearest to the limits"),
    ):
        if len(points):
            panel.scatter(
                *(points[:, x], points[:, y]),
                s=55,
                marker=marker,
                color=color,
                edgecolor="black",
                linewidth=0.6,
                label=label,
                zorder=3,
            )
    lines: tuple[tuple[int, Callable[..., object]], ...] = (
        (x, panel.axvline),
        (y, panel.axhline),
    )
    named = "limit"
    for axis, line in lines:
        for limit in axes[axis].limits:
            if math.isfinite(limit):
                line(limit, color="black", linestyle="--", linewidth=1, label=named)
                named = "_limit"  # one entry of the legend
    _scale(panel, clouds, axes, x, y)


def _scale(panel: Axes, clouds: Clouds, axes: Sequence[Axis], x: int, y: int) -> None:
    panel.set(xscale="log", yscale="log", xlabel=axes[x].title, ylabel=axes[y].title)
    for axis, column, bound in (
        (panel.xaxis, x, panel.set_xlim),
        (panel.yaxis, y, panel.set_ylim),
    ):
        values = clouds.every[:, column]
        ends = [limit for limit in axes[column].limits if math.isfinite(limit)]
        least, most = min(values.min(), *ends, np.inf), max(values.max(), *ends, 0)
        room = max((most / least) ** 0.06, 1.02)
        bound(least / room, most * room)
        axis.set_major_locator(FixedLocator(ticks(least / room, most * room)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
        axis.set_minor_locator(NullLocator())


def _number(panel: Axes, stars: np.ndarray) -> None:
    """Numbers beside the stars, none on a star or on another number."""
    inside = panel.get_window_extent()
    box = inside.x0, inside.y0, inside.x1, inside.y1
    spots = free_spots(panel.transData.transform(stars), box)
    for index, spot in enumerate(spots):
        if spot is None:  # the table has it
            continue
        panel.annotate(
            str(index + 1),
            xy=tuple(stars[index]),
            xytext=tuple(panel.transData.inverted().transform(spot)),
            ha="center",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "linewidth": 0},
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 3},
            zorder=4,
        )


def free_spots(
    places: np.ndarray, box: tuple[float, float, float, float]
) -> list[tuple[float, float] | None]:
    """Where a number may stand for each place, in pixels; None where there is no room.

    Args:
      places: f[N, 2].
      box: left, bottom, right and top of the panel.
    """
    left, bottom, right, top = box
    taken = [tuple(place) for place in places]
    spots: list[tuple[float, float] | None] = []
    for own_x, own_y in places:
        free = (
            (own_x + radius * math.cos(angle), own_y + radius * math.sin(angle))
            for radius in _RADII
            for angle in np.linspace(0, 2 * math.pi, _ANGLES, endpoint=False)
        )
        spot = next(
            (
                (x, y)
                for x, y in free
                if left + _BOX[0] < x < right - _BOX[0]
                and bottom + _BOX[1] < y < top - _BOX[1]
                and all(
                    abs(x - other[0]) > 2 * _BOX[0] or abs(y - other[1]) > 2 * _BOX[1]
                    for other in taken
                )
            ),
            None,
        )
        if spot is not None:
            taken.append(spot)
        spots.append(spot)
    return spots
