"""What a run found: the closing tables."""

import math
from collections.abc import Sequence

from rich.console import Console

from jaxnas.config import Settings
from jaxnas.evaluation.user_objectives import objective_names
from jaxnas.latency.finalists import Finalist
from jaxnas.report.families import family_table
from jaxnas.report.latency import finalists_table, over_limit
from jaxnas.report.quality import show_quality
from jaxnas.report.tables import spread_table, top_table
from jaxnas.report.tradeoffs import tradeoff_table
from jaxnas.report.trust import noise_line, trust_table
from jaxnas.results.result import Result, scored
from jaxnas.results.spread import saturated
from jaxnas.results.summary import Summary
from jaxnas.storage.run_folder import RunFolder


def close(
    folder: RunFolder,
    config: Settings,
    summary: Summary,
    results: Sequence[Result],
    last: Sequence[Result],
    console: Console,
) -> None:
    """The closing tables, and where the files are."""
    spread = summary["search"]["spread"]
    weights = {
        "accuracy": config.accuracy_weight,
        "size": config.size_weight,
        "latency": config.latency_weight,
    }
    names = objective_names(config.objectives)
    show_found(summary, results, last, config.top_k, console, names)
    most = math.inf if config.max_latency is None else config.max_latency
    finalists, winner = _finalists(summary), summary["winner"]["id"]
    if (line := over_limit(finalists, winner, config.latency, most)) is not None:
        console.print(line, soft_wrap=True)
    when = _after_first(summary)
    limits_alone = not config.size_weight and not config.latency_weight
    if limits_alone and len(scored(last)) > 1:
        console.print(tradeoff_table(scored(last), config.max_size, most))
    if len(results) > 1:
        decide = {name: row for name, row in spread.items() if weights[name]}
        console.print(spread_table(decide, f"Scores over the candidates{when}"))
    own = {name: summary["search"]["objectives"][name] for name in names}
    if own:
        title = f"Your objectives over the candidates{when}"
        console.print(spread_table(own, title, "objective"))
    if len(results) > 1:
        for name in saturated(spread):
            if not weights[name]:
                continue
            console.print(
                f"warning: the {name} score is the same for all candidates, it did "
                f"not help to choose; move its target with --{name}-target"
                if name != "accuracy"
                else "warning: all candidates have the same accuracy: train longer",
            )
        for name in saturated(own):
            console.print(f"warning: objective {name} is the same for all candidates")
    show_quality(summary["final"], console)
    for name, path in (
        ("model", folder.model),
        ("candidates", folder.results),
        ("summary", folder.summary),
        ("plots", f"{folder.fitness_plot}, {folder.pareto_plot}"),
    ):
        console.print(f"{name:<11} {path}", soft_wrap=True)


def _after_first(summary: Summary) -> str:
    """What is added to a title of the first phase, if there are others."""
    phases = summary["trust"]["phases"]
    return f", after phase {phases[0]['from']}" if phases else ""


def show_found(
    summary: Summary,
    results: Sequence[Result],
    last: Sequence[Result],
    number: int,
    console: Console,
    names: list[str],
) -> None:
    """The best of the last phase, of each family, and how far to trust them.

    Args:
      summary: of the run.
      results: of all candidates.
      last: those of the last phase.
      number: rows of the first table.
      console: where to print.
      names: the user's objectives.
    """
    console.print(top_table(last, number, names, summary["winner"]["id"]))
    if len({result.config.arch_type for result in results}) > 1:
        console.print(family_table(results, names, _after_first(summary)))
    trust = summary["trust"]
    if any(step["candidates"] > 1 for step in trust["phases"]):
        console.print(trust_table(trust))
    if (line := noise_line(trust)) is not None:
        console.print(line, soft_wrap=True)
    if finalists := _finalists(summary):
        console.print(finalists_table(finalists))


def _finalists(summary: Summary) -> list[Finalist]:
    return [Finalist.from_dict(row) for row in summary["latency"]["finalists"]]
