"""The plot of a front: numbers that do not overlap, axes in plain numbers."""

import itertools
import math
import sys

import numpy as np
import pytest

from jaxnas.report.front_html import write_front_html
from jaxnas.report.front_plot import (
    Axis,
    Clouds,
    free_spots,
    plain_number,
    plot_front,
    ticks,
)
from jaxnas.run import main

NONE = np.empty((0, 2))


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.5e9, "1.5B"), (2e8, "200M"), (20_000, "20K"), (1500, "1500"), (0.02, "0.02")],
)
def test_numbers_are_plain(value, text):
    assert plain_number(value) == text


@pytest.mark.parametrize(
    ("least", "most"), [(1, 1000), (1.9, 2.8), (1e8, 1.2e11), (3, 3.001), (1e-3, 7)]
)
def test_ticks_are_few_and_inside(least, most):
    found = ticks(least, most)
    assert 2 <= len(found) <= 7
    assert all(least <= value <= most for value in found)
    assert len({plain_number(value) for value in found}) == len(found) or most < 3.01


@pytest.mark.parametrize("number", [1, 4, 10, 20])
@pytest.mark.parametrize("spread", [1.0, 20.0, 300.0])
def test_no_number_stands_on_another_or_on_a_star(number, spread):
    places = 200 + spread * np.random.default_rng(number).uniform(
        -0.5, 0.5, (number, 2)
    )
    spots = free_spots(places, (0, 0, 400, 400))
    placed = [spot for spot in spots if spot is not None]
    assert len(placed) == number
    for one, other in itertools.combinations(placed, 2):
        assert abs(one[0] - other[0]) > 13 or abs(one[1] - other[1]) > 11
    for x, y in placed:
        assert 0 < x < 400
        assert 0 < y < 400
        assert min(math.hypot(x - a, y - b) for a, b in places) > 6


@pytest.mark.parametrize("number", [1, 4, 400])
def test_a_plot_of_any_number_of_shapes(tmp_path, number):
    rng = np.random.default_rng(0)
    every = np.exp(rng.uniform(0, 3, (number, 2)))
    axes = [Axis("params", (-math.inf, 10.0)), Axis("ms")]
    path = tmp_path / "front.png"
    clouds = Clouds(every, every[: number // 2], every[:2], every[:3], NONE)
    assert plot_front(path, clouds, axes)
    assert path.stat().st_size > 5_000


def test_no_plot_of_nothing(tmp_path):
    path = tmp_path / "front.png"
    clouds = Clouds(NONE, NONE, NONE, NONE, NONE)
    assert not plot_front(path, clouds, [Axis("a"), Axis("b")])
    assert not path.exists()


def test_a_page_needs_plotly_and_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert main(["automl", "8b", "--html", "--out", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--html needs plotly: pip install 'jaxnas[html]'" in line
    assert main(["automl", "8b", "--html"]) == 2
    assert "--html needs --out DIR" in capsys.readouterr().err


def test_a_page_holds_every_point_and_loads_nothing(tmp_path):
    pytest.importorskip("plotly")
    points = np.exp(np.random.default_rng(0).uniform(0, 3, (30, 2)))
    path = tmp_path / "front.html"
    clouds = [("shapes", "gray", points), ("the best", "gold", points[:3])]
    axes = [Axis("params", (-math.inf, 10.0)), Axis("ms")]
    write_front_html(path, "a title", axes, clouds, lambda name, row: f"{name} {row};")
    page = path.read_text()
    for row in range(30):
        assert f'"shapes {row};"' in page
    assert '"the best 2;"' in page
    assert "<script src=" not in page
