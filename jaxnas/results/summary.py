"""A run's results in numbers, as its summary holds them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from jaxnas.config import RunConfig
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.results.ranking import by_family, front_of, top_results
from jaxnas.results.result import Result, Scored, scored
from jaxnas.results.spread import objective_spread, score_spread


def summary_of(
    config: RunConfig,
    evaluator: Evaluator,
    results: Sequence[Result],
    winner: Scored,
    final: dict[str, Any],
    exhausted: bool,
) -> dict[str, Any]:
    """The summary, but for what later phases and the clock say."""
    statuses = [result.status for result in results]
    return {
        "winner": {"id": winner.id, "config": winner.config.to_dict()},
        "search": {
            "evaluated": len(results),
            "trainings": len(evaluator.trainings),
            **{name: statuses.count(name) for name in ("ok", "failed", "skipped")},
            "exhausted": exhausted,
            "generations": [
                generation_statistics(results, generation)
                for generation in range(results[-1].generation + 1)
            ],
            "spread": score_spread(results, evaluator.fitness),
            "objectives": objective_spread(results, evaluator.extra.names),
            "front": front_of(results),
            "top": [result.id for result in top_results(results, config.top_k)],
            "families": family_summary(results),
        },
        "final": final,
    }


def generation_statistics(
    results: Iterable[Result], generation: int
) -> dict[str, float]:
    """Fitness over the new candidates of a generation that succeeded."""
    found = [
        result.fitness for result in scored(results) if result.generation == generation
    ]
    if not found:
        return {"generation": generation, "new": 0}
    mean = sum(found) / len(found)
    return {
        "generation": generation,
        "new": len(found),
        "best": max(found),
        "mean": mean,
        "std": math.sqrt(sum((x - mean) ** 2 for x in found) / len(found)),
    }


def family_summary(results: Iterable[Result]) -> dict[str, dict[str, Any]]:
    """family -> {"evaluated", "ok", "best"}; best is an id, None if all failed."""
    found = {}
    for family, members in by_family(results).items():
        best = top_results(members, 1)
        found[family] = {
            "evaluated": len(members),
            "ok": len(scored(members)),
            "best": best[0].id if best else None,
        }
    return found
