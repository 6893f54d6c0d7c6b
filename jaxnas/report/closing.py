"""What a run found: its summary, and the closing tables."""

from rich.console import Console

from jaxnas.config import RunConfig
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.user_objectives import objective_names
from jaxnas.pipeline.search import SearchPlan
from jaxnas.report.families import family_summary, family_table
from jaxnas.report.latency import finalists_table
from jaxnas.report.progress import generation_statistics
from jaxnas.report.tables import quality_table, spread_table, top_lines, top_table
from jaxnas.report.trust import noise_line, trust_table
from jaxnas.results.spread import front_of, objective_spread, saturated, score_spread
from jaxnas.storage.jsonl import read_lines
from jaxnas.storage.run_folder import RunFolder


def summary_of(
    config: RunConfig,
    plan: SearchPlan,
    evaluator: Evaluator,
    lines: list[dict],
    winner: dict,
    final: dict,
    exhausted: bool,
) -> dict:
    """The summary, but for what later phases and the clock say."""
    statuses = [line["status"] for line in lines]
    return {
        "winner": {"id": winner["id"], "config": winner["config"]},
        "search": {
            "evaluated": len(lines),
            "trainings": len(evaluator.trainings),
            **{name: statuses.count(name) for name in ("ok", "failed", "skipped")},
            "exhausted": exhausted,
            "generations": [
                generation_statistics(lines, generation)
                for generation in range(lines[-1]["generation"] + 1)
            ],
            "spread": score_spread(lines, evaluator.fitness),
            "objectives": objective_spread(lines, evaluator.extra.names),
            "front": front_of(lines),
            "top": [line["id"] for line in top_lines(lines, config.top_k)],
            "families": family_summary(lines),
        },
        "final": final,
    }


def close(
    folder: RunFolder, config: RunConfig, summary: dict, lines, last, console: Console
):
    """The closing tables, and where the files are."""
    spread = summary["search"]["spread"]
    names = objective_names(config.objectives)
    show_found(summary, lines, last, config.top_k, console, names)
    when = _after_first(summary)
    console.print(spread_table(spread, f"Scores over the candidates{when}"))
    own = {name: summary["search"]["objectives"][name] for name in names}
    if own:
        title = f"Your objectives over the candidates{when}"
        console.print(spread_table(own, title, "objective"))
    if len(lines) > 1:
        for name in saturated(spread):
            console.print(
                f"warning: the {name} score is the same for all candidates, it did "
                f"not help to choose; move its target with --{name}-target"
                if name != "accuracy"
                else "warning: all candidates have the same accuracy: train longer",
            )
        for name in saturated(own):
            console.print(f"warning: objective {name} is the same for all candidates")
    console.print(quality_table(summary["final"]["splits"]))
    for name, path in (
        ("model", folder.model),
        ("candidates", folder.results),
        ("summary", folder.summary),
        ("plots", f"{folder.fitness_plot}, {folder.pareto_plot}"),
    ):
        console.print(f"{name:<11} {path}", soft_wrap=True)


def _after_first(summary: dict) -> str:
    """What is added to a title of the first phase, if there are others."""
    phases = summary["trust"]["phases"]
    return f", after phase {phases[0]['from']}" if phases else ""


def last_phase(folder: RunFolder, lines: list[dict]) -> list[dict]:
    """A finished run's finalists: the last phase in which one succeeded."""
    later = read_lines(folder.rungs) if folder.rungs.exists() else []
    ok = [line["phase"] for line in later if line["status"] == "ok"]
    return [line for line in later if line["phase"] == ok[-1]] if ok else lines


def show_found(
    summary: dict,
    lines: list[dict],
    last: list[dict],
    number: int,
    console: Console,
    names: list[str],
):
    """The best of the last phase, of each family, and how far to trust them.

    Args:
      summary: of the run.
      lines: of all candidates.
      last: those of the last phase.
      number: rows of the first table.
      console: where to print.
      names: the user's objectives.
    """
    console.print(top_table(last, number, names))
    if len({line["config"]["arch_type"] for line in lines}) > 1:
        console.print(family_table(lines, names, _after_first(summary)))
    trust = summary["trust"]
    if trust["phases"]:
        console.print(trust_table(trust))
    if (line := noise_line(trust)) is not None:
        console.print(line, soft_wrap=True)
    if measured := summary["latency"]["finalists"]:
        console.print(finalists_table(measured))
