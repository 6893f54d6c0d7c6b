"""One run in its folder, from settings to the saved winner, top to bottom."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from arch import ArchitectureConfig
from arch.cost import MIB, Hardware
from arch.space import Space
from jaxnas.analytic.cost_table import CostTable
from jaxnas.clock import PHASES_END, SEARCH_ENDS, TRAINING_ENDS, Clock, Deadline
from jaxnas.config import RunConfig, Settings
from jaxnas.data import prepare
from jaxnas.errors import UsageError
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.fitness import OBJECTIVES, deciding
from jaxnas.evaluation.training_log import TrainingLog
from jaxnas.evaluation.user_objectives import changed_since, objective_names, sources_of
from jaxnas.latency.finalists import hardware_of, measure_finalists
from jaxnas.pipeline.budget import fit_to_budget, with_later_phases, words
from jaxnas.pipeline.build import (
    check_memory,
    check_settings,
    compressions_ahead,
    make_evaluator,
    make_fitness,
    make_rungs,
    make_task,
    make_trainer,
)
from jaxnas.pipeline.finish import finish, log_failure
from jaxnas.pipeline.limits import costs_of_space, fields_of
from jaxnas.pipeline.manifest import (
    check_manifest,
    manifest_of,
    record_compilations,
)
from jaxnas.pipeline.phases import Promotions, promote, repeated
from jaxnas.pipeline.promotion import Pool
from jaxnas.pipeline.report import write_report
from jaxnas.pipeline.room import MOST_GENERATIONS, room_for, room_of
from jaxnas.pipeline.search import Search, bound, most_candidates
from jaxnas.pipeline.strategy import compiled_strategy, first_asked
from jaxnas.pipeline.verify import digests, verify
from jaxnas.pipeline.watcher import OnCandidate, Watcher
from jaxnas.pipeline.winner import BestWeights
from jaxnas.population.compile_stats import compile_counts
from jaxnas.population.devices import Machine, local_machine
from jaxnas.population.observer import Observer
from jaxnas.population.pace import KINDS, Pace
from jaxnas.population.plan import Plan
from jaxnas.population.plan_log import Plans
from jaxnas.population.probe import Probed
from jaxnas.population.ray_cluster import Cluster, connected
from jaxnas.population.train_states import States
from jaxnas.population.trainer import Trainer
from jaxnas.report.announce import announce
from jaxnas.report.closing import close, show_found
from jaxnas.report.plots import plot_fitness, plot_pareto
from jaxnas.report.progress import Progress
from jaxnas.report.quality import show_quality
from jaxnas.report.tables import plain_console, top_table
from jaxnas.results.phases import PhaseResult, finalists, last_phase
from jaxnas.results.ranking import top_results
from jaxnas.results.result import Result, ResultLog, read_results
from jaxnas.results.summary import Summary, summary_of
from jaxnas.runtime import backend, set_up
from jaxnas.spaces import read_space, still_holds
from jaxnas.storage import disk
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.files import remove_partial, write_json, write_whole
from jaxnas.storage.jsonl import Lines
from jaxnas.storage.kinds import read_kept
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.phase import FIRST
from jaxnas.training.task import Task
from search import Strategy

SLOW = 1.2  # times as long as predicted, from which on it is said


class Ready(NamedTuple):
    """What a run knows before anything trains."""

    folder: RunFolder
    config: Settings  # fitted to the budget
    clock: Clock
    task: Task
    hardware: Hardware  # whose latency is predicted
    machine: Machine
    table: CostTable  # what the space's models cost
    pace: Pace  # learned from what runs
    probed: Probed | None  # compiled by then
    strategy: Strategy | None  # that asked for it
    cluster: Cluster | None  # whose workers train


class Opened(NamedTuple):
    """What a run writes to while it goes on, and what trains and scores."""

    results: ResultLog
    later: ResultLog  # of the phases after the first
    timings: Lines
    logs: tuple[Lines, ...]  # of trainings and plans
    best_weights: BestWeights
    progress: Progress
    evaluator: Evaluator


def run(
    folder: RunFolder,
    config: RunConfig,
    *,
    resumed: bool = False,
    console: Console | None = None,
    verbose: bool = False,
    began: float | None = None,
    on_candidate: OnCandidate | None = None,
    ray: str | None = None,
) -> Summary:
    """Searches, trains the winner on, scores and saves it.

    Args:
      folder: holds the settings already; locked by the caller.
      config: its settings.
      resumed: whether to go on with what the folder holds.
      console: where to print; by default the terminal.
      verbose: whether to print each generation's plan.
      began: by `time.monotonic`, when the budget's clock started; now by default.
      on_candidate: called with each result as it is recorded, see `api.search`.
      ray: address of a Ray cluster whose workers train the candidates, or auto.

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
    settings = config.resolve(backend())
    if resumed and folder.summary.exists():
        return _already_done(folder, settings, console)
    clock = Clock(settings.budget_seconds(), folder.budget, began)
    space = _space(folder, settings, console)
    with contextlib.ExitStack() as stack:
        cluster = None
        if ray is not None:
            cluster = stack.enter_context(_connected(ray, settings, console))
        ready = _prepare(folder, config, settings, space, clock, cluster, console)
        watcher = Watcher(on_candidate, folder.stopped)
        opened = _open(stack, ready, watcher, console, verbose)
        _check_manifest(ready, opened.evaluator, console)
        announce(folder, ready.config, opened.evaluator, ready.table, console)
        if (text := words(ready.config, clock)) is not None:
            console.print(text, soft_wrap=True)
        objectives = len(OBJECTIVES) + len(opened.evaluator.extra.names)
        by = deciding(opened.evaluator.fitness, objectives)
        promotions = Promotions.of(ready.config, by)
        most = most_candidates(ready.config, ready.table)
        pool = promotions.pool(opened.evaluator, most)
        exhausted, enough = _search(ready, opened, pool, watcher)
        results = list(opened.results)
        ready, opened = _with_later_phases(ready, opened, promotions, pool)
        phases = _phases(ready, opened, promotions, pool)
        _say_what_ended(ready, exhausted, enough, results, opened.progress.say)
        plot_fitness(folder.fitness_plot, results)
        plot_pareto(folder.pareto_plot, results, opened.evaluator.extra.names)
        summary, last = _finish(ready, opened, phases, exhausted)
    write_json(folder.summary, summary)
    _tidy(folder)
    close(folder, ready.config, summary, results, last, console)
    write_report(folder, ready.task.dataset, clock, console)  # nobody waits for it
    return summary


def _connected(
    address: str, config: Settings, console: Console
) -> contextlib.AbstractContextManager[Cluster]:
    """The Ray cluster there, until the context ends."""

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    return connected(address, _memory_limit(config), say)


def _memory_limit(config: Settings) -> float | None:
    """Bytes of a device that may be used, if the settings say so."""
    return None if config.memory_limit is None else config.memory_limit * MIB


def _space(folder: RunFolder, config: Settings, console: Console) -> Space:
    """The space that the run began with, whatever became of its file."""
    space, text = read_space(config.space, folder.space)
    if not still_holds(config.space, text):
        console.print(
            f"{config.space} is not what it was when the run began: the run keeps "
            f"the space in {folder.space}",
            soft_wrap=True,
        )
    return space


def _prepare(
    folder: RunFolder,
    given: RunConfig,
    config: Settings,
    space: Space,
    clock: Clock,
    cluster: Cluster | None,
    console: Console,
) -> Ready:
    """Reads the data, knows the device, fits the settings to the budget.

    Args:
      folder: where the settings are written as they came to be.
      given: the settings as they were asked for.
      config: them, resolved.
      space: that is searched.
      clock: the budget's.
      cluster: whose workers train, if any do.
      console: is told what takes long.
    """

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    check_settings(config)  # before the data, which can take minutes
    dataset = prepare(config.data, config.vocab_size)
    members = 0 if cluster is None else len(cluster.members)
    machine = local_machine(_memory_limit(config), members)
    check_memory(config, machine)
    # Before the plan, which is for the time that is left then.
    hardware = hardware_of(config, folder.manifest, say)
    task = make_task(config, dataset)
    pace = Pace(machine.cores if machine.shares_cores else math.inf)
    strategies: list[Strategy] = []

    def first(config: Settings) -> list[ArchitectureConfig]:
        scores, number = make_fitness(config), len(objective_names(config.objectives))
        columns = deciding(scores, len(OBJECTIVES) + number)
        fields = fields_of(task)
        table = costs_of_space(config, hardware, fields, space)
        strategies.append(compiled_strategy(config, table, scores, columns))
        return first_asked(config, strategies[0], table, fields)

    config, probed = fit_to_budget(
        given, config, space, task, machine, clock, pace, first, say
    )
    write_whole(folder.config, config.to_toml())
    task = make_task(config, dataset)
    table = costs_of_space(config, hardware, fields_of(task), space)
    return Ready(
        folder,
        config,
        clock,
        task,
        hardware,
        machine,
        table,
        pace,
        probed,
        next(iter(strategies), None),
        cluster,
    )


def _open(
    stack: contextlib.ExitStack,
    ready: Ready,
    watcher: Watcher,
    console: Console,
    verbose: bool,
) -> Opened:
    """Opens what a run writes to, until the stack is closed."""
    folder, config = ready.folder, ready.config
    results = stack.enter_context(ResultLog(folder.results, watcher.show))
    trainings = stack.enter_context(Lines(folder.trainings))
    lines = stack.enter_context(Lines(folder.plans))
    timings = stack.enter_context(Lines(folder.timings))
    later = stack.enter_context(ResultLog(folder.rungs, watcher.show))
    most = most_candidates(config, ready.table)
    progress = stack.enter_context(
        Progress(console, most, timings, _seconds_left(ready.clock))
    )
    if ready.cluster is not None:
        ready.cluster.say, ready.cluster.watch = progress.say, progress.workers
    best_weights = BestWeights(folder.best_weights)
    several = len(config.named_phases()) > 1
    plans, compilers = Plans(lines), {}
    if ready.probed is not None:
        programs, compiler = ready.probed
        plans.add([], Plan(buckets=(), prepared=programs, seconds=0.0))
        compilers = {compiler.lone: compiler}
    trainer = make_trainer(
        config,
        ready.task,
        compilers=compilers,
        compressions=compressions_ahead(config, ready.table.space),
        states=States(folder.states) if several else None,
        plans=plans,
        machine=ready.machine,
        cluster=ready.cluster,
        pace=ready.pace,
        observer=Observer(
            planned=lambda plan: progress.planned(plan, verbose),
            ran=progress.plan_has_run,
            trained=best_weights.offer,
            failed=lambda *failure: log_failure(folder, *failure),
            say=progress.say,
        ),
    )
    stack.callback(trainer.close)
    evaluator = make_evaluator(
        config,
        trainer,
        ready.table.space,
        hardware=ready.hardware,
        trainings=TrainingLog(trainings),
    )
    logs = trainings, lines
    return Opened(results, later, timings, logs, best_weights, progress, evaluator)


def _seconds_left(clock: Clock) -> Callable[[str], float]:
    """Until a part of the run ends by the clock."""
    ends = {"search": SEARCH_ENDS, "phase": PHASES_END}
    return lambda part: clock.left(ends[part])


def _search(
    ready: Ready, opened: Opened, pool: Pool, watcher: Watcher
) -> tuple[bool, str | None]:
    """The first phase.

    Returns:
      Whether the space is exhausted, and why the search ended early, if it found
      enough.
    """
    folder, config, clock, *_ = ready
    deadline = Deadline(clock, SEARCH_ENDS, "evaluated")
    open_ = "generations" in (clock.decided("open", list[str]) or ())
    with (
        Checkpoints(folder.checkpoints, config.keep_checkpoints) as checkpoints,
        opened.progress.stage("search"),
    ):
        search = Search(
            settings=config,
            evaluator=opened.evaluator,
            table=ready.table,
            results=opened.results,
            checkpoints=checkpoints,
            progress=opened.progress,
            on_generation=_recorder(
                folder.manifest, opened.timings, opened.evaluator.trainer, pool
            ),
            deadline=deadline,
            room=room_of(clock, opened.evaluator, deadline),
            most=MOST_GENERATIONS if open_ else None,
            strategy=ready.strategy,
            watcher=watcher,
            logs=opened.logs,
        )
        enough = search.run()
    return search.exhausted, enough


def _recorder(
    manifest: Path, timings: Lines, trainer: Trainer, pool: Pool
) -> Callable[[int, list[Result]], None]:
    """Records what each generation compiled; drops states that none goes on from."""
    counts, programs = compile_counts(), 0

    def record(generation: int, results: list[Result]) -> None:
        nonlocal counts, programs
        if trainer.states is not None:  # there is a later phase
            pool.read(results)
            trainer.keep_states([result.config for result in pool.results], FIRST)
        before, counts = counts, compile_counts()
        old, programs = programs, trainer.programs()
        pace = {kind: round(trainer.pace.factor(kind), 3) for kind in KINDS}
        timings.append({"after": generation + 1, "slower": pace})
        record_compilations(
            manifest,
            generation=generation,
            candidates=sum(result.generation == generation for result in results),
            programs=programs - old,
            **counts.since(before)._asdict(),
        )

    return record


def _with_later_phases(
    ready: Ready, opened: Opened, promotions: Promotions, pool: Pool
) -> tuple[Ready, Opened]:
    """The later phases planned again, for the time that the search has left."""
    evaluator, results = opened.evaluator, list(opened.results)
    trainer = evaluator.trainer
    if ready.clock.budget is None or len(trainer.rungs) < 2:
        return ready, opened
    pool.read(results)
    chosen = promotions.choose(evaluator, FIRST, results, pool.results)
    promoted = [result.config for result in chosen.every]
    config = with_later_phases(ready.config, ready.clock, trainer, promoted)
    write_whole(ready.folder.config, config.to_toml())
    trainer = dataclasses.replace(
        trainer, rungs=make_rungs(config, ready.task.settings)
    )
    evaluator = dataclasses.replace(evaluator, trainer=trainer)
    return ready._replace(config=config), opened._replace(evaluator=evaluator)


def _phases(
    ready: Ready, opened: Opened, promotions: Promotions, pool: Pool
) -> list[PhaseResult]:
    """The later phases."""
    evaluator, clock = opened.evaluator, ready.clock
    with opened.progress.stage("phases"):
        if len(evaluator.trainer.rungs) > 1:
            pool.read(list(opened.results))
        return promote(
            evaluator,
            list(opened.results),
            pool,
            promotions,
            opened.later,
            opened.progress,
            room_for(clock, evaluator.trainer),
            lambda name: Deadline(clock, PHASES_END, f"phase {name}"),
        )


def _say_what_ended(
    ready: Ready,
    exhausted: bool,
    enough: str | None,
    results: Sequence[Result],
    say: Callable[[str], None],
) -> None:
    """Says why there are fewer candidates than were asked for, if so."""
    settings, candidates = ready.config, len(results)
    trained = sum(result.status != "skipped" for result in results)
    if exhausted:
        say(f"the space is exhausted: all {candidates} models allowed were evaluated")
    elif enough is not None:
        say(f"the search ends after {candidates} candidates: {enough}")
    elif ready.clock.decided("evaluated", int) is not None:
        say(f"the clock ends the search after {candidates} candidates")
        slower = ready.pace.slower_than(ready.clock.decided("pace", list[float]))
        planned = ready.clock.decided("candidates", int)
        if slower > SLOW and trained < planned:
            say(
                f"slower than predicted by {slower:.1f}: {trained} candidates were "
                f"trained, about {planned} were planned"
            )
    elif candidates >= bound(settings):
        say(f"the search ends at max_evals={settings.max_evals}")


def _finish(
    ready: Ready, opened: Opened, phases: list[PhaseResult], exhausted: bool
) -> tuple[Summary, list[Result]]:
    """Trains the winner on and measures.

    Returns:
      The summary, and the results of the last phase that a candidate survived.
    """
    folder, config, clock, *_ = ready
    evaluator, progress = opened.evaluator, opened.progress
    results = list(opened.results)
    rung, last = finalists(results, phases)
    [winner] = top_results(last, 1)
    write_whole(folder.best, winner.config.to_json())
    with progress.stage("latency"):  # of nothing that training changes
        number = 0 if clock.late(TRAINING_ENDS) else config.measure_top
        best = top_results(last, number) if number else []
        measured = measure_finalists(
            best, evaluator.hardware, opened.timings, progress.say
        )
    with progress.stage("finish"):
        final = finish(
            folder,
            config,
            clock,
            evaluator,
            evaluator.trainer.phases[rung],
            winner,
            opened.best_weights,
            progress,
        )
    with progress.stage("repeats"):
        again = repeated(evaluator, winner, results, config.repeats, progress)
    return summary_of(
        config,
        evaluator,
        results,
        winner,
        final,
        exhausted,
        phases,
        again,
        measured,
        digests(folder),
    ), last


def _check_manifest(ready: Ready, evaluator: Evaluator, console: Console) -> None:
    """Writes the manifest; warns if the run began under other conditions."""
    file = ready.folder.manifest
    manifest = manifest_of(
        ready.task.dataset,
        ready.config,
        ready.folder.space,
        evaluator.hardware,
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
    disk.remove(folder.best_weights)
    for path in (folder.states, folder.finishing):
        if path.exists():
            disk.remove_folder(path)


def _already_done(folder: RunFolder, config: Settings, console: Console) -> Summary:
    """A finished run is shown again, not run again, if its files are whole."""
    try:
        summary: Summary = read_kept(folder.summary, Summary)
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
    for part in verify(folder):
        if part.lost is not None:
            raise UsageError(f"{folder.path} is damaged: {part.name}: {part.said}")
    _tidy(folder)
    console.print(f"{folder.path} is finished already")
    show_found(summary, results, last, number, console, names)
    show_quality(summary["final"], console)
    # Of a run that was killed behind its summary there is none.
    how = f"python -m jaxnas.run report {folder.path}"
    page = folder.report if folder.report.exists() else f"written by {how}"
    console.print(f"{'report':<11} {page}", soft_wrap=True)
    return summary
