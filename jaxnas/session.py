"""One run in its folder, from settings to the saved winner."""

import contextlib
import json
import shutil
import time
import traceback
from typing import Any

import jax
from rich.console import Console

from arch import ArchitectureConfig
from arch.cost import MIB
from arch.spaces import SPACES
from jaxnas.budget import Clock
from jaxnas.checkpoint import Checkpoints
from jaxnas.climb import Promotions, climb, finalists, keep_states, repeated
from jaxnas.config import RunConfig
from jaxnas.data import prepare, score_bigram, score_unigram
from jaxnas.errors import UsageError
from jaxnas.evaluation.counts import compile_counts
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.machine import local_machine
from jaxnas.evaluation.plans import Plans
from jaxnas.evaluation.states import States
from jaxnas.evaluation.trained import TrainingFailed
from jaxnas.evaluation.trainings import Trainings
from jaxnas.experiment import SearchPlan, run_search
from jaxnas.fitness import OBJECTIVES
from jaxnas.folder import RunFolder
from jaxnas.latency.finalists import describe_latency, hardware_of, measure_finalists
from jaxnas.manifest import (
    calibration_in,
    check_manifest,
    manifest_of,
    record_compilations,
)
from jaxnas.model_files import save_model
from jaxnas.objectives import changed_since, objective_names, sources_of
from jaxnas.promotion import Pool
from jaxnas.records import Lines, read_lines, remove_partial, write_json, write_whole
from jaxnas.report.families import family_summary, family_table
from jaxnas.report.latency import finalists_table
from jaxnas.report.plots import plot_fitness, plot_pareto
from jaxnas.report.progress import Progress, generation_statistics
from jaxnas.report.spread import (
    front_of,
    objective_spread,
    saturated,
    score_spread,
)
from jaxnas.report.tables import (
    plain_console,
    quality_table,
    spread_table,
    top_lines,
    top_table,
)
from jaxnas.report.trust import noise_line, phase_summary, trust_of, trust_table
from jaxnas.report.words import describe
from jaxnas.runtime import set_up
from jaxnas.setup import (
    check_settings,
    foreseen_compressions,
    make_evaluator,
    make_plan,
    make_rungs,
    make_task,
)
from jaxnas.timed import (
    fit_to_budget,
    last_steps,
    phase_is_late,
    room_for,
    search_is_late,
    words,
)
from jaxnas.winner import BestWeights, score_splits, train_on


def run(
    folder: RunFolder,
    config: RunConfig,
    *,
    resumed: bool = False,
    console: Console | None = None,
    verbose: bool = False,
    began: float | None = None,
) -> dict:
    """Searches, trains the winner on, scores and saves it.

    Args:
      folder: holds the settings already; locked by the caller.
      config: its settings.
      resumed: whether to go on with what the folder holds.
      console: where to print; by default the terminal.
      verbose: whether to print each generation's plan.
      began: by `time.monotonic`, when the budget's clock started; now by default.

    Returns:
      The summary, as it is written to the folder.

    Raises:
      UsageError: the settings or the folder cannot be used.
      RunFailed: no candidate succeeded.
    """
    began = time.monotonic() if began is None else began
    console = plain_console() if console is None else console
    set_up()
    remove_partial(folder.path)
    given, config = config, config.resolve(jax.default_backend())
    clock = Clock(config.budget_seconds(), folder.budget, began)
    space = SPACES[config.space]
    if resumed and folder.summary.exists():
        return _already_done(folder, config, console)
    check_settings(config)  # before the data, which can take minutes
    dataset = prepare(config.data, config.vocab_size)
    task = make_task(config, dataset)
    machine = local_machine(
        limit=None if config.memory_limit is None else config.memory_limit * MIB,
        known=calibration_in(folder.manifest),
        say=lambda text: console.print(text, soft_wrap=True),
    )
    config = fit_to_budget(given, config, space, task, machine, clock)
    task = make_task(config, dataset)
    plan = make_plan(config, space, dataset)
    rungs = make_rungs(config, task.settings)
    write_whole(folder.config, config.to_toml())
    with (
        Lines(folder.results) as results,
        Lines(folder.trainings) as trainings,
        Lines(folder.plans) as plans,
        Lines(folder.timings) as timings,
        Lines(folder.rungs) as later,
        Progress(console, plan.most_candidates, timings) as progress,
        contextlib.ExitStack() as stack,
    ):
        best_weights = BestWeights(folder.best_weights)
        evaluator = make_evaluator(
            config,
            task,
            hardware=hardware_of(config, folder.manifest, progress.say),
            compressions=foreseen_compressions(config, space),
            states=States(folder.states) if len(rungs) > 1 else None,
            trainings=Trainings(trainings),
            plans=Plans(plans),
            machine=machine,
            on_trained=best_weights.offer,
            on_failed=lambda *failure: _log_failure(folder, *failure),
            on_planned=lambda plan: progress.planned(plan, verbose),
            on_run=progress.plan_has_run,
            say=progress.say,
        )
        stack.callback(evaluator.close)
        manifest = manifest_of(dataset, config, evaluator.hardware, machine.calibration)
        manifest["objectives"] = sources_of(evaluator.extra.objectives)
        if changed := check_manifest(folder.manifest, manifest):
            console.print(
                f"warning: this run began elsewhere, its results may differ in "
                f"their last digits: {'; '.join(changed)}"
            )
        for path in changed_since(folder.manifest, manifest["objectives"]):
            console.print(
                f"warning: the source of objective {path} has changed since the run "
                f"began: new candidates may not compare with the old ones"
            )
        promotions = Promotions.of(config)
        pool = promotions.pool(evaluator, plan.most_candidates)
        _announce(folder, plan, evaluator, console)
        if (text := words(config, clock)) is not None:
            console.print(text, soft_wrap=True)
        with (
            Checkpoints(folder.checkpoints, config.keep_checkpoints) as checkpoints,
            progress.stage("search"),
        ):
            exhausted = run_search(
                plan,
                evaluator,
                results,
                checkpoints,
                progress,
                _Generations(folder, evaluator, pool),
                search_is_late(clock),
            )
        lines = list(results)
        with progress.stage("phases"):
            pool.read(lines)
            phases = climb(
                evaluator,
                lines,
                pool,
                promotions,
                best_weights,
                later,
                progress,
                room_for(clock),
                phase_is_late(clock),
            )
        rung, last = finalists(lines, phases)
        [winner] = top_lines(last, 1)
        if exhausted:
            progress.say(
                f"the space is exhausted: all {plan.space.distinct_count} distinct "
                f"models were evaluated"
            )
        elif plan.max_evals is not None and len(lines) >= plan.max_evals:
            progress.say(f"the search ends at max_evals={plan.max_evals}")
        write_whole(folder.best, ArchitectureConfig(**winner["config"]).to_json())
        plot_fitness(folder.fitness_plot, lines)
        plot_pareto(folder.pareto_plot, lines, evaluator.extra.names)
        with progress.stage("finish"):
            at_end = evaluator.at(rung)
            final = _finish(
                folder, config, clock, at_end, winner, best_weights, progress
            )
        with progress.stage("repeats"):
            again = repeated(evaluator, winner, lines, config.repeats, progress)
        with progress.stage("latency"):
            best = top_lines(last, config.measure_top)
            measured = measure_finalists(
                best, evaluator.hardware, timings, progress.say
            )
    trust = trust_of(rungs[0].name, lines, phases, again)
    summary = _summary(config, plan, evaluator, lines, winner, final, exhausted)
    summary |= {"phases": phase_summary(rungs, lines, phases), "trust": trust}
    summary["latency"] = {"objective": config.latency, "finalists": measured}
    write_json(folder.summary, summary)
    _tidy(folder)
    _close(folder, config, summary, lines, last, console)
    return summary


class _Generations:
    """Records what each generation compiled, and forgets whom it left behind."""

    def __init__(self, folder: RunFolder, evaluator: Evaluator, pool: Pool):
        self._folder, self._evaluator, self._pool = folder, evaluator, pool
        self._counts, self._programs = compile_counts(), 0

    def __call__(self, generation: int, lines: list[dict]):
        self._pool.read(lines)
        keep_states(self._evaluator, self._pool.lines)
        counts, programs = compile_counts(), self._evaluator.programs()
        record_compilations(
            self._folder.manifest,
            generation=generation,
            candidates=sum(line["generation"] == generation for line in lines),
            programs=programs - self._programs,
            **counts.since(self._counts)._asdict(),
        )
        self._counts, self._programs = counts, programs


def _announce(folder: RunFolder, plan: SearchPlan, evaluator: Evaluator, console):
    dataset, settings = evaluator.task.dataset, evaluator.task.settings
    chosen = evaluator.validation_windows()
    unigram = score_unigram(dataset.train, chosen, dataset.token_bytes)
    bigram = score_bigram(dataset.train, chosen, dataset.token_bytes)
    most = plan.max_evals
    bound = "" if most is None else f"{most} candidates at most, "
    lines = [
        f"run folder   {folder.path}",
        f"space        {plan.space.name}: {plan.space.distinct_count:,} distinct "
        f"models; {plan.generations} generations of {plan.population}, "
        f"{bound}{plan.strategy}, seed {plan.seed}",
        f"data         {dataset.spec}: {dataset.statistics['bytes'] / 1e6:.1f} MB in "
        f"{dataset.statistics['files_kept']} files, {len(dataset.train):,} training "
        f"tokens of a vocabulary of {dataset.vocab_size}",
        f"training     {_phases_in_words(evaluator)} windows of {settings.window} "
        f"tokens x epochs a candidate, on {jax.devices()[0].device_kind}; "
        f"latency {describe_latency(evaluator.latency, evaluator.hardware)}",
        f"to beat      token unigram {unigram.bits_per_byte:.3f} bits/byte "
        f"(accuracy {unigram.accuracy:.4f}), token bigram "
        f"{bigram.bits_per_byte:.3f} ({bigram.accuracy:.4f}), on the validation split",
    ]
    if names := evaluator.extra.names:
        lines.insert(2, f"objectives   {', '.join([*OBJECTIVES, *names])}")
        if plan.strategy in ("random", "genetic"):
            lines[2] += f"; {plan.strategy} search is guided by none of yours"
    console.print("\n".join(lines), soft_wrap=True)


def _phases_in_words(evaluator: Evaluator) -> str:
    phases = [(rung.name, rung.phase) for rung in evaluator.rungs]
    words = [f"{phase.samples} x {phase.epochs}" for _, phase in phases]
    if len(words) > 1:
        words = [
            f"{name} {text}" for (name, _), text in zip(phases, words, strict=True)
        ]
    return ", ".join(words)


def _finish(
    folder: RunFolder,
    config: RunConfig,
    clock: Clock,
    evaluator: Evaluator,
    winner: dict,
    best_weights: BestWeights,
    progress: Progress,
) -> dict:
    """Trains the winner on, saves it, and scores it on the held-out splits.

    If training on fails, the winner is what the search found.
    """
    task = evaluator.task
    model = ArchitectureConfig(**winner["config"])
    progress.say(f"winner: {winner['id']}  {describe(model)}")
    params = best_weights.read(model, evaluator.rung)
    if params is None:
        progress.say("its weights were not kept: training them again first")
        params = evaluator.weights(model, progress.steps("winner again"))
    final: dict[str, Any] = {"steps": 0, "reason": None}
    try:
        steps = last_steps(config, clock, model, task, params)
        final["steps"] = steps
        progress.say(f"the winner trains on for {steps} steps")
        with Checkpoints(folder.finishing, keep=1) as checkpoints:
            report = progress.steps("winner")
            trained = train_on(
                model, task, params, steps, checkpoints, time.monotonic, report
            )
        splits = score_splits(model, task, trained, config.final_windows)
    except (TrainingFailed, jax.errors.JaxRuntimeError) as error:
        _log_failure(folder, model, traceback.format_exc())
        final = {"steps": 0, "reason": f"training on failed: {error}".splitlines()[0]}
        progress.say(f"{final['reason']}; the winner stays as the search trained it")
        trained = params
        splits = score_splits(model, task, trained, config.final_windows)
    save_model(folder.model, model, trained, task.dataset.tokenizer)
    return final | {"splits": splits}


def _log_failure(folder: RunFolder, config: ArchitectureConfig, trace: str):
    with folder.failures.open("a") as file:
        file.write(f"{describe(config)}\n{trace}\n")


def _tidy(folder: RunFolder):
    """Removes what only an unfinished run needs."""
    folder.best_weights.unlink(missing_ok=True)
    shutil.rmtree(folder.states, ignore_errors=True)
    shutil.rmtree(folder.finishing, ignore_errors=True)


def _summary(
    config: RunConfig,
    plan: SearchPlan,
    evaluator: Evaluator,
    lines: list[dict],
    winner: dict,
    final: dict,
    exhausted: bool,
) -> dict:
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


def _close(
    folder: RunFolder, config: RunConfig, summary: dict, lines, last, console: Console
):
    """The closing tables, and where the files are."""
    spread = summary["search"]["spread"]
    names = objective_names(config.objectives)
    _print_candidates(lines, last, config.top_k, console, names)
    _print_trust(summary["trust"], console)
    console.print(spread_table(spread))
    own = {name: summary["search"]["objectives"][name] for name in names}
    if own:
        title = "Your objectives over the candidates"
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
    _print_latency(summary, console)
    for name, path in (
        ("model", folder.model),
        ("candidates", folder.results),
        ("summary", folder.summary),
        ("plots", f"{folder.fitness_plot}, {folder.pareto_plot}"),
    ):
        console.print(f"{name:<11} {path}", soft_wrap=True)


def _last_phase(folder: RunFolder, lines: list[dict]) -> list[dict]:
    """A finished run's finalists: the last phase in which one succeeded."""
    later = read_lines(folder.rungs) if folder.rungs.exists() else []
    ok = [line["phase"] for line in later if line["status"] == "ok"]
    return [line for line in later if line["phase"] == ok[-1]] if ok else lines


def _already_done(folder: RunFolder, config: RunConfig, console: Console) -> dict:
    """A finished run is shown again, not run again, if its files are whole."""
    with Checkpoints(folder.checkpoints, config.keep_checkpoints) as checkpoints:
        checkpoints.check()
    try:
        summary = json.loads(folder.summary.read_text())
        lines = [json.loads(line) for line in folder.results.open()]
        number = len(summary["search"]["top"])
        names = objective_names(config.objectives)
        last = _last_phase(folder, lines)
        top_table(last, number, names)
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{folder.summary} or {folder.results} is damaged: remove the former to "
            f"finish the run again"
        ) from None
    _tidy(folder)
    console.print(f"{folder.path} is finished already")
    _print_candidates(lines, last, number, console, names)
    _print_trust(summary["trust"], console)
    _print_latency(summary, console)
    return summary


def _print_trust(trust: dict, console: Console):
    """What the phases say of each other, where there are several."""
    if trust["phases"]:
        console.print(trust_table(trust))
    if (line := noise_line(trust)) is not None:
        console.print(line, soft_wrap=True)


def _print_latency(summary: dict, console: Console):
    """What was measured of the best, if anything was."""
    if measured := summary["latency"]["finalists"]:
        console.print(finalists_table(measured))


def _print_candidates(
    lines: list[dict],
    last: list[dict],
    number: int,
    console: Console,
    names: list[str],
):
    """The best of the last phase, and of each family where there are several."""
    console.print(top_table(last, number, names))
    if len({line["config"]["arch_type"] for line in lines}) > 1:
        console.print(family_table(lines, names))
