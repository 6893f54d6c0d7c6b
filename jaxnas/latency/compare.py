"""How well predictions of latency agree with the clock."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from arch import ArchitectureConfig
from arch.cost import (
    Calibrated,
    Hardware,
    Sizes,
    Workload,
    sizes_of,
    total_flops,
    total_parameters,
    total_seconds,
)
from arch.cost.calibrated import calibrated_seconds
from arch.cost.sizes import Amount
from jaxnas.latency.fit import READINGS
from jaxnas.latency.measure import Measured
from jaxnas.results.correlation import spearman

ALONE: dict[str, Callable[[Sizes, Workload], Amount]] = {
    "FLOPs alone": total_flops,
    "parameters alone": lambda sizes, reading: total_parameters(sizes),
}
FEWEST = 4  # models of one width, for a rank correlation among them


class Agreement(NamedTuple):
    """How N predictions agree with what was measured."""

    error: float  # median of |predicted / measured - 1|
    worst: float  # its greatest
    spearman: float | None  # None where there are too few models
    within: float | None  # the same of logarithms less their mean over the width
    mean: float | None  # of Spearman's among the models of each width
    lowest: float | None  # the least of these


class Comparison(TypedDict):
    """A predictor's `Agreement` on one reading, as JSON holds it."""

    reading: str
    predictor: str
    error: float
    worst: float
    spearman: float | None
    within: float | None
    mean: float | None
    lowest: float | None


def agreement(
    predicted: Sequence[float], measured: Sequence[float], widths: Sequence[int]
) -> Agreement:
    """Compares predictions of models with their widths."""
    guess, truth, width = map(np.asarray, (predicted, measured, widths))
    error = np.abs(guess / truth - 1)
    groups = [width == value for value in np.unique(width)]
    inside = [
        rank
        for group in groups
        if group.sum() >= FEWEST
        and (rank := spearman(guess[group], truth[group])) is not None
    ]
    return Agreement(
        error=float(np.median(error)),
        worst=float(error.max()),
        spearman=spearman(guess, truth),
        within=spearman(_less_width(guess, width), _less_width(truth, width)),
        mean=float(np.mean(inside)) if inside else None,
        lowest=min(inside) if inside else None,
    )


def compare(
    calibrated: Calibrated,
    hardware: Hardware | None,
    fitted: tuple[Sequence[ArchitectureConfig], Sequence[Measured]],
    checked: tuple[Sequence[ArchitectureConfig], Sequence[Measured]],
) -> list[Comparison]:
    """A row for each reading and predictor, on models that no fit has seen.

    Args:
      calibrated: what the first models gave.
      hardware: gives the roofline's predictions; None for none.
      fitted: those models; FLOPs and parameters get their one rate from them.
      checked: the others.
    """
    rows: list[Comparison] = []
    for name, reading in READINGS.items():
        known, truth = (
            [getattr(times, name).median / 1e3 for times in measured]
            for _, measured in (fitted, checked)
        )
        every = [sizes_of(config) for config in checked[0]]
        guesses = {
            "calibrated": [
                float(calibrated_seconds(sizes, calibrated, reading)) for sizes in every
            ]
        }
        if hardware is not None:
            guesses["roofline"] = [
                float(total_seconds(sizes, hardware, reading)) for sizes in every
            ]
        for title, count in ALONE.items():
            before, now = (
                [float(count(sizes_of(config), reading)) for config in configs]
                for configs, _ in (fitted, checked)
            )
            rate = _one_rate(before, known)
            guesses[title] = [rate * amount for amount in now]
        widths = [config.hidden_dim for config in checked[0]]
        for title, guess in guesses.items():
            agreed = agreement(guess, truth, widths)
            rows.append(
                {
                    "reading": name,
                    "predictor": title,
                    "error": agreed.error,
                    "worst": agreed.worst,
                    "spearman": agreed.spearman,
                    "within": agreed.within,
                    "mean": agreed.mean,
                    "lowest": agreed.lowest,
                }
            )
    return rows


def _less_width(values: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """What is left of logarithms when the width is known."""
    logs = np.log(values)
    return logs - np.asarray([logs[widths == width].mean() for width in widths])


def _one_rate(amounts: Sequence[float], seconds: Sequence[float]) -> float:
    """Least squares of the relative error."""
    relative = np.asarray(amounts) / np.asarray(seconds)
    return float(relative.sum() / (relative @ relative))
