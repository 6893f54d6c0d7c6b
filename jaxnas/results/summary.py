"""A run's results in numbers, as its summary holds them."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from jaxnas.config import Settings
from jaxnas.errors import UsageError
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.results.gain import Gain, Obvious, Quality
from jaxnas.results.phases import PhaseResult
from jaxnas.results.ranking import by_family, front_of, top_results
from jaxnas.results.result import Measurement, Result, Scored, scored
from jaxnas.results.spread import Spread, objective_spread, score_spread
from jaxnas.results.trust import PhaseCounts, Trust, phase_summary, trust_of
from jaxnas.storage.jsonl import Json
from jaxnas.storage.kinds import read_kept

_SPLITS = ("validation", "test")


class Winner(TypedDict):
    """Which candidate won."""

    id: int
    config: Json


class Generation(TypedDict, total=False):
    """Fitness over a generation's new candidates; without any, no figures."""

    generation: int
    new: int
    best: float
    mean: float
    std: float


class Family(TypedDict):
    """A family's candidates; `best` is an id, None if all failed."""

    evaluated: int
    ok: int
    best: int | None


class SearchSummary(TypedDict):
    """What the first phase found."""

    evaluated: int
    trainings: int
    ok: int
    failed: int
    skipped: int
    exhausted: bool
    generations: list[Generation]
    spread: Spread
    objectives: Spread
    front: list[int]
    top: list[int]
    families: dict[str, Family]


class SplitScores(TypedDict):
    """The winner and n-gram baselines on a held-out split, each by its metrics."""

    windows: int
    winner: Quality
    unigram: Quality
    bigram: Quality


class Final(TypedDict):
    """The winner's last training: steps, why there were none, and its scores.

    Beside it the obvious models, and what the winner gains over the better of them;
    summaries of versions before 0.1.0 have neither.
    """

    steps: int
    reason: str | None
    splits: dict[str, SplitScores]
    baseline: NotRequired[list[Obvious]]
    gain: NotRequired[Gain | None]


class Latency(TypedDict):
    """Which latency was an objective, and what was measured of the best."""

    objective: str
    finalists: list[Measurement]


class Summary(TypedDict):
    """A run's results, as `summary.json` holds them."""

    winner: Winner
    search: SearchSummary
    final: Final
    phases: list[PhaseCounts]
    trust: Trust
    latency: Latency
    # SHA-256 of what all this is about; not in versions before 0.1.0.
    files: NotRequired[dict[str, str]]


def read_summary(path: Path) -> Summary:
    """The summary of a finished run.

    Raises:
      UsageError: it is damaged.
    """
    found: Summary = read_kept(path, Summary)
    final, gain = found["final"], found["final"].get("gain")
    scored_on = [{*final["splits"]}, *([] if gain is None else [{*gain["splits"]}])]
    for scores in scored_on:
        if missing := [split for split in _SPLITS if split not in scores]:
            raise UsageError(f"{path} is damaged: no scores of {missing[0]}")
    if gain is not None and not 0 <= gain["over"] < len(final.get("baseline", [])):
        raise UsageError(f"{path} is damaged: no obvious model {gain['over']}")
    return found


def summary_of(
    config: Settings,
    evaluator: Evaluator,
    results: Sequence[Result],
    winner: Scored,
    final: Final,
    exhausted: bool,
    phases: Sequence[PhaseResult],
    repeats: Sequence[float],
    finalists: list[Measurement],
    files: dict[str, str],
) -> Summary:
    """The summary.

    Args:
      config: of the run.
      evaluator: of the run.
      results: of the first phase.
      winner: of the last phase.
      final: its last training.
      exhausted: whether every model of the space was evaluated.
      phases: the later ones.
      repeats: see `trust_of`.
      finalists: what was measured of the best.
      files: digests of what the folder holds.
    """
    statuses = [result.status for result in results]
    rungs = evaluator.trainer.rungs
    return {
        "winner": {"id": winner.id, "config": winner.config.to_dict()},
        "search": {
            "evaluated": len(results),
            "trainings": len(evaluator.trainings),
            "ok": statuses.count("ok"),
            "failed": statuses.count("failed"),
            "skipped": statuses.count("skipped"),
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
        "phases": phase_summary(rungs, results, phases),
        "trust": trust_of(rungs[0].name, results, phases, repeats),
        "latency": {"objective": config.latency, "finalists": finalists},
        "files": files,
    }


def generation_statistics(results: Iterable[Result], generation: int) -> Generation:
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


def family_summary(results: Iterable[Result]) -> dict[str, Family]:
    """What was found of each family."""
    found: dict[str, Family] = {}
    for family, members in by_family(results).items():
        best = top_results(members, 1)
        found[family] = {
            "evaluated": len(members),
            "ok": len(scored(members)),
            "best": best[0].id if best else None,
        }
    return found
