"""A Pareto front as one page that holds all it needs: shapes say what they are.

Plotly draws it (the extra `html`); the page works without a network.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxnas.errors import UsageError
from jaxnas.report.front_plot import Axis, plain_number
from jaxnas.storage.files import write_whole

MOST_DOTS = 2_000  # of each cloud


def require_plotly() -> None:
    """Raises a UsageError if Plotly is not installed."""
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise UsageError("--html needs plotly: pip install 'jaxnas[html]'") from None


def write_front_html(
    path: Path,
    title: str,
    axes: Sequence[Axis],
    clouds: Sequence[tuple[str, str, np.ndarray]],
    words: Callable[[str, int], str],
) -> None:
    """Writes the page.

    Args:
      path: of the page.
      title: of the page.
      axes: the objectives.
      clouds: each one's name, color and f[N, K] points, a column for each axis;
        later ones lie above.
      words: (name of a cloud, row) -> what is shown of a point under the pointer.
    """
    from plotly.graph_objects import Scattergl
    from plotly.subplots import make_subplots

    pairs = list(itertools.combinations(range(len(axes)), 2)) or [(0, 0)]
    figure = make_subplots(rows=1, cols=len(pairs))
    for name, color, points in clouds:
        rows = range(0, len(points), max(1, math.ceil(len(points) / MOST_DOTS)))
        texts = [words(name, row) for row in rows]
        stars = name == "the best"
        for column, (x, y) in enumerate(pairs, 1):
            figure.add_trace(
                Scattergl(
                    x=[float(points[row, x]) for row in rows],
                    y=[float(points[row, y]) for row in rows],
                    text=texts,
                    hoverinfo="text",
                    mode="markers",
                    marker={
                        "color": color,
                        "size": 12 if stars else 5,
                        "symbol": "star" if stars else "circle",
                        "line": {"width": 1 if stars else 0, "color": "black"},
                    },
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                ),
                row=1,
                col=column,
            )
    for column, (x, y) in enumerate(pairs, 1):
        for axis, line, update in (
            (x, figure.add_vline, figure.update_xaxes),
            (y, figure.add_hline, figure.update_yaxes),
        ):
            limits = list(filter(math.isfinite, axes[axis].limits))
            named = ", ".join(map(plain_number, limits))
            text = f"{axes[axis].title} (limit {named})" if limits else axes[axis].title
            update(title_text=text, type="log", row=1, col=column)
            for limit in limits:
                line(limit, line_dash="dash", row=1, col=column)
    figure.update_layout(title=title, template="plotly_white", hovermode="closest")
    write_whole(path, figure.to_html(include_plotlyjs=True, full_html=True))
