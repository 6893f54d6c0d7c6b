"""One run in its folder, from settings to the saved winner."""

import contextlib
import json
import shutil
import time

import jax
from rich.console import Console

from arch.cost import MIB
from arch.spaces import SPACES
from jaxnas.clock import Clock
from jaxnas.config import RunConfig
from jaxnas.data import prepare
from jaxnas.errors import UsageError
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.training_log import Trainings
from jaxnas.evaluation.user_objectives import changed_since, objective_names, sources_of
from jaxnas.latency.finalists import hardware_of
from jaxnas.pipeline.budget import fit_to_budget, words
from jaxnas.pipeline.build import (
    check_settings,
    foreseen_compressions,
    make_evaluator,
    make_plan,
    make_task,
    make_trainer,
)
from jaxnas.pipeline.finish import log_failure
from jaxnas.pipeline.manifest import calibration_in, check_manifest, manifest_of
from jaxnas.pipeline.phases import Promotions
from jaxnas.pipeline.stages import Ready, Stages
from jaxnas.pipeline.winner import BestWeights
from jaxnas.population.devices import local_machine
from jaxnas.population.plan_log import Plans
from jaxnas.population.train_states import States
from jaxnas.report.announce import announce
from jaxnas.report.closing import close, show_found
from jaxnas.report.progress import Progress
from jaxnas.report.tables import plain_console, top_table
from jaxnas.results.phases import last_phase
from jaxnas.results.result import ResultLog, read_results
from jaxnas.runtime import set_up
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.files import remove_partial, write_json, write_whole
from jaxnas.storage.jsonl import Lines
from jaxnas.storage.run_folder import RunFolder


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
    resolved = config.resolve(jax.default_backend())
    if resumed and folder.summary.exists():
        return _already_done(folder, resolved, console)
    clock = Clock(resolved.budget_seconds(), folder.budget, began)
    ready = _prepare(folder, config, resolved, clock, console)
    with contextlib.ExitStack() as stack:
        session = _open(stack, ready, console, verbose)
        _check_manifest(ready, session.evaluator, console)
        announce(folder, ready.config, ready.plan.space, session.evaluator, console)
        if (text := words(ready.config, clock)) is not None:
            console.print(text, soft_wrap=True)
        promotions = Promotions.of(ready.config)
        pool = promotions.pool(session.evaluator, ready.plan.most_candidates)
        exhausted = session.search(pool)
        results = list(session.results)
        phases = session.promote(results, pool, promotions)
        session.say_what_ended(exhausted, len(results))
        session.plot(results)
        summary, last = session.finish(results, phases, exhausted)
    write_json(folder.summary, summary)
    _tidy(folder)
    close(folder, ready.config, summary, results, last, console)
    return summary


def _prepare(
    folder: RunFolder,
    given: RunConfig,
    config: RunConfig,
    clock: Clock,
    console: Console,
) -> Ready:
    """Reads the data, knows the device, fits the settings to the budget.

    Args:
      folder: where the settings are written as they came to be.
      given: the settings as they were asked for.
      config: them, resolved.
      clock: the budget's.
      console: is told what takes long.
    """

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    space = SPACES[config.space]
    check_settings(config)  # before the data, which can take minutes
    dataset = prepare(config.data, config.vocab_size)
    machine = local_machine(
        limit=None if config.memory_limit is None else config.memory_limit * MIB,
        known=calibration_in(folder.manifest),
        say=say,
    )
    # Before the plan, which is for the time that is left then.
    hardware = hardware_of(config, folder.manifest, say)
    task = make_task(config, dataset)
    config = fit_to_budget(given, config, space, task, machine, clock)
    plan = make_plan(config, space, dataset)
    write_whole(folder.config, config.to_toml())
    task = make_task(config, dataset)
    return Ready(folder, config, clock, task, hardware, machine, plan)


def _open(
    stack: contextlib.ExitStack, ready: Ready, console: Console, verbose: bool
) -> Stages:
    """Opens what a run writes to, until the stack is closed."""
    folder, config, plan = ready.folder, ready.config, ready.plan
    results = stack.enter_context(ResultLog(folder.results))
    trainings = stack.enter_context(Lines(folder.trainings))
    plans = stack.enter_context(Lines(folder.plans))
    timings = stack.enter_context(Lines(folder.timings))
    later = stack.enter_context(ResultLog(folder.rungs))
    progress = stack.enter_context(Progress(console, plan.most_candidates, timings))
    best_weights = BestWeights(folder.best_weights)
    several = len(config.named_phases()) > 1
    trainer = make_trainer(
        config,
        ready.task,
        compressions=foreseen_compressions(config, plan.space),
        states=States(folder.states) if several else None,
        plans=Plans(plans),
        machine=ready.machine,
        on_planned=lambda plan: progress.planned(plan, verbose),
        on_run=progress.plan_has_run,
        say=progress.say,
    )
    stack.callback(trainer.close)
    evaluator = make_evaluator(
        config,
        trainer,
        hardware=ready.hardware,
        trainings=Trainings(trainings),
        on_trained=best_weights.offer,
        on_failed=lambda *failure: log_failure(folder, *failure),
    )
    return Stages(ready, evaluator, best_weights, results, later, timings, progress)


def _check_manifest(ready: Ready, evaluator: Evaluator, console: Console) -> None:
    """Writes the manifest; warns if the run began under other conditions."""
    file = ready.folder.manifest
    manifest = manifest_of(
        ready.task.dataset,
        ready.config,
        evaluator.hardware,
        ready.machine.calibration,
    )
    manifest["objectives"] = sources_of(evaluator.extra.objectives)
    if changed := check_manifest(file, manifest):
        console.print(
            f"warning: this run began elsewhere, its results may differ in "
            f"their last digits: {'; '.join(changed)}"
        )
    for path in changed_since(file, manifest["objectives"]):
        console.print(
            f"warning: the source of objective {path} has changed since the run "
            f"began: new candidates may not compare with the old ones"
        )


def _tidy(folder: RunFolder) -> None:
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
        results = read_results(folder.results)
        number = len(summary["search"]["top"])
        names = objective_names(config.objectives)
        last = last_phase(folder.rungs, results)
        top_table(last, number, names)
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{folder.summary} or {folder.results} is damaged: remove the former to "
            f"finish the run again"
        ) from None
    _tidy(folder)
    console.print(f"{folder.path} is finished already")
    show_found(summary, results, last, number, console, names)
    return summary
