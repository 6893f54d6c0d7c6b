"""Plots of a run, as PNG."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnas.evaluation.fitness import OBJECTIVES
from jaxnas.results.ranking import front_of
from jaxnas.results.result import Result, scored
from jaxnas.storage.files import write_whole


def plot_fitness(path: Path, results: Sequence[Result]) -> None:
    """Fitness of every candidate, and the best so far, over generations."""
    successes = scored(results)
    generations = np.asarray([result.generation + 1 for result in successes])
    fitness = np.asarray([result.fitness for result in successes])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(generations, fitness, s=16, alpha=0.6, label="candidate")
    steps = np.unique(generations)
    best = [fitness[generations <= step].max() for step in steps]
    axes.plot(steps, best, marker="o", color="tab:red", label="best so far")
    mean = [fitness[generations == step].mean() for step in steps]
    deviation = [fitness[generations == step].std() for step in steps]
    axes.errorbar(
        steps, mean, deviation, fmt="_", color="tab:gray", capsize=3, label="mean, std"
    )
    axes.set(xlabel="generation", ylabel="fitness")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    _save(figure, path)


def plot_pareto(
    path: Path, results: Sequence[Result], extra: Sequence[str] = ()
) -> None:
    """The objectives in pairs; the Pareto front has a colour of its own.

    Args:
      path: of the PNG.
      results: of all candidates.
      extra: the names of the user's objectives; each has a row against ours.
    """
    successes = scored(results)
    objectives = np.asarray([result.objectives for result in successes])
    chosen = set(front_of(results))
    front = np.asarray([result.id in chosen for result in successes])
    names = [*OBJECTIVES, *extra]
    pairs = [(1, 0), (2, 0), (1, 2)]
    pairs += [(own, ours) for own in range(3, len(names)) for ours in range(3)]
    figure = Figure(figsize=(12, 4 * len(pairs) / 3), layout="constrained")
    grid = figure.subplots(len(pairs) // 3, 3, squeeze=False)
    for axes, (x, y) in zip(grid.flat, pairs, strict=True):
        _scatter(axes, objectives[:, x], objectives[:, y], front)
        axes.set(xlabel=names[x], ylabel=names[y])
    figure.suptitle(f"{front.sum()} of {len(front)} candidates are not dominated")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, dpi=120)
    write_whole(path, png.getvalue())


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, front: np.ndarray) -> None:
    axes.scatter(x[~front], y[~front], s=16, alpha=0.5, label="dominated")
    axes.scatter(x[front], y[front], s=28, color="tab:red", label="Pareto front")
    axes.legend()
