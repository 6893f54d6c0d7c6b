"""What a run writes to while it goes on, and what trains and scores."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from arch import ArchitectureConfig
from arch.padding import CHOSEN
from jaxnas.clock import PHASES_END, SEARCH_ENDS, Clock
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.prospects import Ahead
from jaxnas.evaluation.training_log import TrainingLog
from jaxnas.keys import key_of
from jaxnas.pipeline.build import (
    compressions_ahead,
    make_evaluator,
    make_trainer,
)
from jaxnas.pipeline.finish import log_failure
from jaxnas.pipeline.last_steps import steps_ahead
from jaxnas.pipeline.limits import fields_of
from jaxnas.pipeline.prepared import Ready
from jaxnas.pipeline.search import most_candidates
from jaxnas.pipeline.watcher import Watcher
from jaxnas.pipeline.winner import BestWeights
from jaxnas.population.observer import Observer
from jaxnas.population.plan import Plan
from jaxnas.population.plan_log import Plans
from jaxnas.population.train_states import States
from jaxnas.population.trainer import Trainer
from jaxnas.report.progress import Progress
from jaxnas.results.result import ResultLog
from jaxnas.storage.jsonl import Lines

TYPICAL = 64  # models drawn, to know how long a step usually takes


class Opened(NamedTuple):
    """What a run writes to while it goes on, and what trains and scores."""

    results: ResultLog
    later: ResultLog  # of the phases after the first
    timings: Lines
    logs: tuple[Lines, ...]  # of trainings and plans
    best_weights: BestWeights
    progress: Progress
    evaluator: Evaluator


def open_run(
    stack: contextlib.ExitStack,
    ready: Ready,
    watcher: Watcher,
    console: Console,
    verbose: bool,
    ahead: float | None = None,
) -> Opened:
    """Opens what a run writes to, until the stack is closed; `ahead` as for `run`."""
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
    observer = Observer(
        planned=lambda plan: progress.planned(plan, verbose),
        ran=progress.plan_has_run,
        trained=best_weights.offer,
        failed=lambda *failure: log_failure(folder, *failure),
        say=progress.say,
    )
    trainer = _trainer(ready, Plans(lines), observer)
    stack.callback(trainer.close)
    if ahead is not None:
        ready.clock.decide("ahead", ahead)
    evaluator = make_evaluator(
        config,
        trainer,
        ready.table.space,
        hardware=ready.hardware,
        trainings=TrainingLog(trainings),
        steps_ahead=_steps_ahead(ready, trainer),
    )
    logs = trainings, lines
    return Opened(results, later, timings, logs, best_weights, progress, evaluator)


def _trainer(ready: Ready, plans: Plans, observer: Observer) -> Trainer:
    """Of all phases, with the programs that are there already."""
    config, compilers = ready.config, {}
    if ready.probed is not None:
        programs, compiler = ready.probed
        plans.add([], Plan(buckets=(), prepared=programs, seconds=0.0))
        compilers = {compiler.lone: compiler}
    several = len(config.named_phases()) > 1
    return make_trainer(
        config,
        ready.task,
        compilers=compilers,
        compressions=compressions_ahead(config, ready.table.space),
        settled=[name for name in CHOSEN if len(ready.table.space.values(name)) == 1],
        states=States(ready.folder.states) if several else None,
        plans=plans,
        machine=ready.machine,
        cluster=ready.cluster,
        pace=ready.pace,
        observer=observer,
    )


def _steps_ahead(ready: Ready, trainer: Trainer) -> Ahead | None:
    """See `Prospects`; None where fitness decides."""
    config = ready.config
    accuracy_alone = config.size_weight == 0 == config.latency_weight
    # Of a lone phase no curve is kept.
    if not accuracy_alone or len(config.named_phases()) == 1:
        return None
    return steps_ahead(ready.clock, trainer, lambda: _some(ready))


def _some(ready: Ready) -> list[ArchitectureConfig]:
    """Some models that the limits allow, the same each time; all kinds if none is."""
    table, fields = ready.table, fields_of(ready.task)
    drawn = table.space.sample(key_of(0, "typical"), TYPICAL)
    over = np.asarray(jax.jit(jax.vmap(table.excess))(drawn))
    allowed = drawn[over <= 0] if (over <= 0).any() else drawn
    return [table.space.decode(genome, **fields) for genome in allowed]


def _seconds_left(clock: Clock) -> Callable[[str], float]:
    """Until a part of the run ends by the clock."""
    ends = {"search": SEARCH_ENDS, "phase": PHASES_END}
    return lambda part: clock.left(ends[part])
