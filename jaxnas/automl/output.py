"""What a search of shapes found, as files: JSON, a plot, a page."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxnas.analytic.limits import Limit
from jaxnas.analytic.objectives import OBJECTIVES
from jaxnas.automl.named_shape import in_words
from jaxnas.automl.problem import Candidates, Problem, configs_of
from jaxnas.automl.search import Found
from jaxnas.storage.files import write_whole
from jaxnas.storage.jsonl import Json

if TYPE_CHECKING:
    from jaxnas.report.front_plot import Axis


def result_of(problem: Problem, found: Found, asked: Json) -> Json:
    """What automl.json holds; no clock times, so that a seed gives the same bytes."""
    spec = problem.spec
    use = dataclasses.asdict(spec.use)
    return {
        "spec": {
            "name": spec.name,
            "family": spec.family,
            "dimensions": spec.dimensions,
            "head_size": spec.head_size,
            "model": spec.model,
            "use": use | {"hardware": use["hardware"]["name"]},
            "limits": [_finite(limit) for limit in spec.limits],
            "weights": spec.weights,
        },
        **asked,
        "objectives": problem.objectives,
        "shapes": problem.shapes.total,
        "evaluated": found.evaluated,
        "feasible": found.feasible,
        "limits": [
            {
                "limit": str(binding.limit),
                "kept_by": binding.met,
                "closest": binding.closest,
            }
            for binding in found.binding
        ],
        "bounds": problem.bounds,
        "top": [
            row | {"score": float(score)}
            for row, score in zip(_rows(problem, found.top), found.scores, strict=True)
        ],
        "front": _rows(problem, found.apart),
        "front_shapes": len(found.front.genomes),
        "knee": found.knee if found.knee >= 0 else None,
        "nearest": _rows(problem, found.nearest)[0] if not found.feasible else None,
        "conflict": None
        if found.conflict is None
        else [
            move._asdict() | {"limit": str(move.limit)} for move in found.conflict.moves
        ],
    }


def _finite(limit: Limit) -> list[str | float | None]:
    return [value if value not in _INFINITE else None for value in limit]


_INFINITE = (float("inf"), float("-inf"))


def _rows(problem: Problem, candidates: Candidates) -> list[Json]:
    return [
        {
            "values": {
                name: float(candidates.values[name][row]) for name in problem.figures
            },
            "config": config.to_dict(),
        }
        for row, config in enumerate(configs_of(problem, candidates))
    ]


def write_found(out: Path, problem: Problem, found: Found, result: Json) -> bool:
    """Writes the result and its plot; False if there was nothing to draw."""
    from jaxnas.report.front_plot import Clouds, plot_front

    write_whole(out / "automl.json", json.dumps(result, indent=1) + "\n")
    axes = _axes(problem)
    nearest = found.nearest.take(np.arange(0 if found.feasible else 1))
    parts = (found.every, found.kept, found.apart, found.top, nearest)
    clouds = Clouds(*(problem.table(part) for part in parts))
    return plot_front(out / "front.png", clouds, axes)


def write_html(out: Path, problem: Problem, found: Found) -> None:
    """Writes front.html."""
    from jaxnas.report.front_html import write_front_html

    parts = {
        "shapes": ("lightgray", found.every),
        "within the limits": ("steelblue", found.kept),
        "Pareto front": ("crimson", found.apart),
        "the best": ("gold", found.top),
    }

    def words(name: str, row: int) -> str:
        candidates = parts[name][1]
        config = problem.shapes.config(candidates.genomes[row])
        figures = [
            f"{OBJECTIVES[figure].title} {candidates.values[figure][row]:,.5g}"
            for figure in problem.figures
        ]
        rank = f"{row + 1}: " if name == "the best" else ""
        return "<br>".join([rank + in_words(config), *figures])

    write_front_html(
        out / "front.html",
        problem.spec.name,
        _axes(problem),
        [
            (name, color, problem.table(candidates))
            for name, (color, candidates) in parts.items()
            if len(candidates.genomes)
        ],
        words,
    )


def _axes(problem: Problem) -> "list[Axis]":
    from jaxnas.report.front_plot import Axis

    limits = {limit.objective: limit for limit in problem.spec.limits}
    return [
        Axis(OBJECTIVES[name].title, limits[name][1:] if name in limits else ())
        for name in problem.aims
    ]
