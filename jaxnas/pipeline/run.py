"""One run in its folder, from settings to the saved winner, top to bottom."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from jaxnas.clock import (
    PHASES_END,
    SEARCH_ENDS,
    TRAINING_ENDS,
    WINNER,
    Clock,
    Deadline,
)
from jaxnas.config import RunConfig, Settings
from jaxnas.errors import RunFailed
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.fitness import OBJECTIVES, deciding
from jaxnas.evaluation.user_objectives import changed_since, sources_of
from jaxnas.latency.finalists import measure_finalists
from jaxnas.pipeline.budget import planned_by, with_later_phases, words
from jaxnas.pipeline.build import make_rungs
from jaxnas.pipeline.finish import finish
from jaxnas.pipeline.finished import already_done, tidy
from jaxnas.pipeline.manifest import (
    check_manifest,
    manifest_of,
    record_compilations,
)
from jaxnas.pipeline.opened import Opened, open_run
from jaxnas.pipeline.phases import Promotions, promote, repeated
from jaxnas.pipeline.prepared import Ready, connected_to, prepare_run, space_of_run
from jaxnas.pipeline.promotion import Pool
from jaxnas.pipeline.report import write_report
from jaxnas.pipeline.room import MOST_GENERATIONS, room_for, room_of
from jaxnas.pipeline.search import Search, bound, most_candidates
from jaxnas.pipeline.verify import digests
from jaxnas.pipeline.watcher import OnCandidate, Watcher
from jaxnas.population.compile_stats import compile_counts
from jaxnas.population.pace import KINDS
from jaxnas.population.trainer import Trainer
from jaxnas.report.announce import announce
from jaxnas.report.closing import close
from jaxnas.report.plots import plot_fitness, plot_pareto
from jaxnas.report.tables import plain_console
from jaxnas.results.phases import PhaseResult, finalists
from jaxnas.results.ranking import top_results, winner_of
from jaxnas.results.result import Result, Scored, scored
from jaxnas.results.summary import Summary, summary_of
from jaxnas.runtime import backend, set_up
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.files import remove_partial, write_json, write_whole
from jaxnas.storage.jsonl import Lines
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.phase import FIRST, Phase

SLOW = 1.2  # times as long as predicted, from which on it is said


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
    ahead: float | None = None,
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
      ahead: seconds that the winner will train for elsewhere: what trains faster is
        worth more then. None if what comes of it here is all.

    Returns:
      The summary, as it is written to the folder.

    Raises:
      UsageError: the settings or the folder cannot be used.
      RunFailed: no candidate succeeded, or no model of the space keeps the limits.
    """
    began = time.monotonic() if began is None else began
    console = plain_console() if console is None else console
    set_up()
    remove_partial(folder.path)
    settings = config.resolve(backend())
    if resumed and folder.summary.exists():
        return already_done(folder, settings, console)
    clock = Clock(settings.budget_seconds(), folder.budget, began)
    space = space_of_run(folder, settings, console)
    with contextlib.ExitStack() as stack:
        cluster = None
        if ray is not None:
            cluster = stack.enter_context(connected_to(ray, settings, console))
        ready = prepare_run(folder, config, settings, space, clock, cluster, console)
        watcher = Watcher(on_candidate, folder.stopped)
        opened = open_run(stack, ready, watcher, console, verbose, ahead)
        _announce(ready, opened.evaluator, console)
        try:
            settings, summary, last = _to_winner(ready, opened, watcher)
        except RunFailed:
            write_report(folder, ready.task.dataset, clock, console)
            raise
        results = list(opened.results)
    ready.clock.save()
    write_json(folder.summary, summary)
    tidy(folder)
    close(folder, settings, summary, results, last, console)
    write_report(folder, ready.task.dataset, clock, console)  # nobody waits for it
    clock.save()
    return summary


def _announce(ready: Ready, evaluator: Evaluator, console: Console) -> None:
    """Says what runs and on what, before it does."""
    _check_manifest(ready, evaluator, console)
    announce(ready.folder, ready.config, evaluator, ready.table, console)
    if (text := words(ready.config, ready.clock)) is not None:
        console.print(text, soft_wrap=True)


def _to_winner(
    ready: Ready, opened: Opened, watcher: Watcher
) -> tuple[Settings, Summary, list[Result]]:
    """The search, the later phases, the end.

    Returns:
      The settings as they were kept to, and what `_finish` does.
    """
    folder, evaluator = ready.folder, opened.evaluator
    names = evaluator.extra.names
    by = deciding(evaluator.fitness, len(OBJECTIVES) + len(names))
    promotions = Promotions.of(ready.config, by)
    pool = promotions.pool(evaluator, most_candidates(ready.config, ready.table))
    exhausted, enough = _search(ready, opened, pool, watcher)
    results = list(opened.results)
    ready, opened = _with_later_phases(ready, opened, promotions, pool)
    phases = _phases(ready, opened, promotions, pool)
    _say_what_ended(ready, exhausted, enough, results, opened.progress.say)
    plot_fitness(folder.fitness_plot, results)
    plot_pareto(folder.pareto_plot, results, names)
    return ready.config, *_finish(ready, opened, phases, exhausted)


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
    open_ = clock.plans("generations")
    with opened.progress.stage("search"):
        search = Search(
            settings=config,
            evaluator=opened.evaluator,
            table=ready.table,
            results=opened.results,
            checkpoints=Checkpoints(folder.checkpoints, config.keep_checkpoints),
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
    write_whole(ready.folder.config, config.to_toml(planned_by(ready.clock)))
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
    winner = _winner(ready, opened, evaluator.trainer.phases[rung], last)
    write_whole(folder.best, winner.config.to_json())
    with progress.stage("latency"):  # of nothing that training changes
        number = 0 if clock.late(TRAINING_ENDS) else config.measure_top
        best = top_results(last, number, winner.id) if number else []
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
        late = functools.partial(ready.clock.late, 1.0)
        again = repeated(evaluator, winner, results, config.repeats, progress, late)
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


def _winner(
    ready: Ready, opened: Opened, phase: Phase, last: Sequence[Result]
) -> Scored:
    """The best of the finalists: by what they would reach, where the clock decides."""
    evaluator, clock = opened.evaluator, ready.clock
    [fittest] = top_results(last, 1)
    if evaluator.steps_ahead is None:
        return fittest
    worth = lambda result: evaluator.prospects.worth(result.config, result, phase)
    winner = max(scored(last), key=lambda result: (worth(result), -result.id))
    decided = winner_of(last, clock.decide(WINNER, winner.id))
    assert decided is not None
    if decided.id != fittest.id:
        opened.progress.say(
            f"{decided.id} wins: after phase {phase.name} it is behind {fittest.id}, "
            f"and expected to end before it: it trains faster, or still falls"
        )
    return decided


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
