"""One run in its folder, from settings to the saved winner."""

import contextlib
import json
import shutil
import time

import jax
from rich.console import Console

from arch import ArchitectureConfig
from arch.cost import MIB
from arch.spaces import SPACES
from jaxnas.budget import Clock
from jaxnas.checkpoint import Checkpoints
from jaxnas.climb import Promotions, climb, finalists, keep_states, repeated
from jaxnas.config import RunConfig
from jaxnas.data import prepare
from jaxnas.errors import UsageError
from jaxnas.evaluation.counts import compile_counts
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.machine import local_machine
from jaxnas.evaluation.plans import Plans
from jaxnas.evaluation.states import States
from jaxnas.evaluation.trainings import Trainings
from jaxnas.experiment import run_search
from jaxnas.finish import finish, log_failure
from jaxnas.folder import RunFolder
from jaxnas.latency.finalists import hardware_of, measure_finalists
from jaxnas.manifest import (
    calibration_in,
    check_manifest,
    manifest_of,
    record_compilations,
)
from jaxnas.objectives import changed_since, objective_names, sources_of
from jaxnas.promotion import Pool
from jaxnas.records import Lines, remove_partial, write_json, write_whole
from jaxnas.report.announce import announce
from jaxnas.report.closing import close, last_phase, show_found, summary_of
from jaxnas.report.plots import plot_fitness, plot_pareto
from jaxnas.report.progress import Progress
from jaxnas.report.tables import (
    plain_console,
    top_lines,
    top_table,
)
from jaxnas.report.trust import phase_summary, trust_of
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
    cut_short,
    fit_to_budget,
    phase_is_late,
    room_for,
    search_is_late,
    words,
)
from jaxnas.winner import BestWeights


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
    plan = cut_short(make_plan(config, space, dataset), clock)
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
            on_failed=lambda *failure: log_failure(folder, *failure),
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
        announce(folder, plan, evaluator, console)
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
            if len(rungs) > 1:
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
        elif clock.decided("evaluated") is not None:
            progress.say(f"the clock ends the search after {len(lines)} candidates")
        elif plan.max_evals is not None and len(lines) >= plan.max_evals:
            progress.say(f"the search ends at max_evals={plan.max_evals}")
        write_whole(folder.best, ArchitectureConfig(**winner["config"]).to_json())
        plot_fitness(folder.fitness_plot, lines)
        plot_pareto(folder.pareto_plot, lines, evaluator.extra.names)
        with progress.stage("finish"):
            at_end = evaluator.at(rung)
            final = finish(
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
    summary = summary_of(config, plan, evaluator, lines, winner, final, exhausted)
    summary |= {"phases": phase_summary(rungs, lines, phases), "trust": trust}
    summary["latency"] = {"objective": config.latency, "finalists": measured}
    write_json(folder.summary, summary)
    _tidy(folder)
    close(folder, config, summary, lines, last, console)
    return summary


class _Generations:
    """Records what each generation compiled, and forgets whom it left behind."""

    def __init__(self, folder: RunFolder, evaluator: Evaluator, pool: Pool):
        self._folder, self._evaluator, self._pool = folder, evaluator, pool
        self._counts, self._programs = compile_counts(), 0

    def __call__(self, generation: int, lines: list[dict]):
        if self._evaluator.states is not None:  # there is a later phase
            self._pool.read(lines)
            keep_states(self._pool.lines, self._evaluator)
        counts, programs = compile_counts(), self._evaluator.programs()
        record_compilations(
            self._folder.manifest,
            generation=generation,
            candidates=sum(line["generation"] == generation for line in lines),
            programs=programs - self._programs,
            **counts.since(self._counts)._asdict(),
        )
        self._counts, self._programs = counts, programs


def _tidy(folder: RunFolder):
    """Removes what only an unfinished run needs."""
    folder.best_weights.unlink(missing_ok=True)
    shutil.rmtree(folder.states, ignore_errors=True)
    shutil.rmtree(folder.finishing, ignore_errors=True)


def _already_done(folder: RunFolder, config: RunConfig, console: Console) -> dict:
    """A finished run is shown again, not run again, if its files are whole."""
    with Checkpoints(folder.checkpoints, config.keep_checkpoints) as checkpoints:
        checkpoints.check()
    try:
        summary = json.loads(folder.summary.read_text())
        lines = [json.loads(line) for line in folder.results.open()]
        number = len(summary["search"]["top"])
        names = objective_names(config.objectives)
        last = last_phase(folder, lines)
        top_table(last, number, names)
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{folder.summary} or {folder.results} is damaged: remove the former to "
            f"finish the run again"
        ) from None
    _tidy(folder)
    console.print(f"{folder.path} is finished already")
    show_found(summary, lines, last, number, console, names)
    return summary
