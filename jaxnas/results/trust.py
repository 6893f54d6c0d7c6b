"""How far the screening can be trusted: phases against each other, and noise."""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from jaxnas.results.correlation import spearman
from jaxnas.results.phases import PhaseResult
from jaxnas.results.ranking import top_results
from jaxnas.results.result import Result, scored
from jaxnas.training.rungs import Rung

TOP = 3


# One phase against the next. `correlation` is Spearman's, of accuracies; of the last
# phase's `top`, `top_by_luck` were promoted at random.
PhaseStep = TypedDict(
    "PhaseStep",
    {
        "from": str,
        "to": str,
        "candidates": int,
        "promoted": int,
        "lucky": int,
        "left_behind": int,
        "correlation": float | None,
        "correlation_promoted": float | None,
        "top": int,
        "top_by_luck": int,
    },
)


class Noise(TypedDict):
    """Spread of one config's accuracy over seeds, beside that over candidates."""

    phase: str
    accuracies: list[float]
    std: float | None
    std_over_candidates: float | None


class Trust(TypedDict):
    """How far the screening can be trusted."""

    phases: list[PhaseStep]
    noise: Noise


class PhaseCounts(TypedDict):
    """What a phase trained."""

    phase: str
    steps: int
    candidates: int
    ok: int
    top: list[int]


def trust_of(
    first: str,
    results: Sequence[Result],
    phases: Sequence[PhaseResult],
    repeats: Sequence[float],
) -> Trust:
    """What the later phases say of the earlier ones.

    Args:
      first: name of the first phase.
      results: of its candidates.
      phases: the later ones.
      repeats: accuracies of one config after the first phase, from other seeds,
        the run's own among them.
    """
    names = [first, *(phase.name for phase in phases)]
    every = [list(results), *(phase.results for phase in phases)]
    final = {result.id for result in top_results(every[-1], TOP)}
    steps: list[PhaseStep] = []
    for rung, phase in enumerate(phases):
        ok = scored(every[rung])
        left = len(ok) - len(phase.chosen.promoted)
        lucky = {result.id for result in phase.chosen.lucky}
        steps.append(
            {
                "from": names[rung],
                "to": names[rung + 1],
                "candidates": len(ok),
                "promoted": len(phase.chosen.promoted),
                "lucky": len(lucky),
                "left_behind": left - len(lucky),
                "correlation": rank_correlation(ok, phase.results),
                "correlation_promoted": rank_correlation(
                    phase.chosen.promoted, phase.results
                ),
                "top": len(final),
                "top_by_luck": len(final & lucky),
            }
        )
    accuracies = [result.metrics.accuracy for result in scored(results)]
    return {
        "phases": steps,
        "noise": {
            "phase": first,
            "accuracies": list(repeats),
            "std": _deviation(repeats),
            "std_over_candidates": _deviation(accuracies),
        },
    }


def phase_summary(
    rungs: Sequence[Rung], results: Sequence[Result], phases: Sequence[PhaseResult]
) -> list[PhaseCounts]:
    """What each phase trained, and the candidates that came out best."""
    every = [list(results), *(phase.results for phase in phases)]
    return [
        {
            "phase": rung.name,
            "steps": rung.steps,
            "candidates": len(found),
            "ok": len(scored(found)),
            "top": [result.id for result in top_results(found, TOP)],
        }
        for rung, found in zip(rungs, every, strict=False)
    ]


def rank_correlation(before: Sequence[Result], after: Sequence[Result]) -> float | None:
    """Spearman's, of the accuracies of those in both; None where it has no value."""
    later = {result.id: result.metrics.accuracy for result in scored(after)}
    pairs = [
        (result.metrics.accuracy, later[result.id])
        for result in scored(before)
        if result.id in later
    ]
    before_, after_ = np.asarray(pairs).reshape(-1, 2).T
    return spearman(before_, after_, least=3)


def _deviation(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    found = float(np.std(values, ddof=1))
    return found if math.isfinite(found) else None
