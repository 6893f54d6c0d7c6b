"""Why a shape is what it is, in words: its limits, its shape, models of its size."""

from typing import NamedTuple

import numpy as np

from arch.cost import parameters
from arch.cost.sizes import sizes_of
from arch.open_models import OPEN_MODELS, OpenModel
from arch.scaling.shape import TERMS, aspect_ratio, plain_ffn_ratio, shape_terms
from jaxnas.automl.diverse import touched
from jaxnas.automl.problem import Candidates, Problem

OF_ITS_SIZE = 4.0  # times more or fewer parameters


class Peers(NamedTuple):
    """Open models of about a size, and the range of their shapes."""

    models: tuple[OpenModel, ...]
    aspect: tuple[float, float]  # channels for each layer
    ffn: tuple[float, float]  # as `plain_ffn_ratio`


def peers_of(number: float) -> Peers | None:
    """Open models with a quarter to four times as many parameters, if there are any."""
    models = tuple(
        model
        for model in OPEN_MODELS
        if number / OF_ITS_SIZE <= parameters(model.config) <= number * OF_ITS_SIZE
    )
    if not models:
        return None
    sizes = [sizes_of(model.config) for model in models]
    aspects = [float(aspect_ratio(own)) for own in sizes]
    ratios = [float(plain_ffn_ratio(own)) for own in sizes]
    return Peers(models, (min(aspects), max(aspects)), (min(ratios), max(ratios)))


def reasons(problem: Problem, candidates: Candidates, row: int) -> list[str]:
    """Lines about one shape."""
    sizes = sizes_of(problem.shapes.config(candidates.genomes[row]))
    limits = touched(problem.spec.limits, candidates, row)
    costs = {
        name: float(share) for name, share in shape_terms(sizes).items() if share > 0
    }
    terms = {term.name: term for term in TERMS}
    lines = [
        f"it is at its limit of {', '.join(limits)}" if limits else "it is at no limit"
    ]
    for name, share in costs.items():
        term = terms[name]
        lines.append(
            f"{name} adds {100 * share:.2f} % to its loss (give or take "
            f"{100 * share * term.uncertainty:.2f}): {term.measure}, free {term.free}"
        )
    if not costs:
        lines.append("its shape costs nothing: it is inside all measured ranges")
    number = float(candidates.values["params"][row])
    if "ffn_multiplier" in problem.shapes.names and (peers := peers_of(number)):
        lines.append(
            f"{len(peers.models)} open models of its size: "
            f"{_range(peers.aspect)} channels a layer, it has "
            f"{aspect_ratio(sizes):.0f}; feed-forward {_range(peers.ffn, 1)}, it has "
            f"{plain_ffn_ratio(sizes):.1f} (gated channels count 1.5 times)"
        )
    return lines


def outside(problem: Problem, candidates: Candidates, row: int) -> float:
    """How many times a shape lies outside the range of open models of its size.

    The larger of aspect ratio and feed-forward ratio; 1 inside, or without models.
    """
    peers = peers_of(float(candidates.values["params"][row]))
    if peers is None:
        return 1.0
    sizes = sizes_of(problem.shapes.config(candidates.genomes[row]))
    beyond = [
        max(low / value, value / high, 1.0)
        for value, (low, high) in (
            (float(aspect_ratio(sizes)), peers.aspect),
            (float(plain_ffn_ratio(sizes)), peers.ffn),
        )
    ]
    return float(np.max(beyond))


def _range(ends: tuple[float, float], digits: int = 0) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
