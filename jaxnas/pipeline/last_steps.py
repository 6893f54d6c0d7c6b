"""How many steps the winner trains on for: foreseen, planned and measured."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import numpy as np

from arch import ArchitectureConfig, Params
from jaxnas.clock import PHASES_END, TRAINING_ENDS, Clock
from jaxnas.config import Settings
from jaxnas.evaluation.prospects import Ahead
from jaxnas.pipeline.room import BESIDE, seconds_alone
from jaxnas.population.pace import KINDS, Pace
from jaxnas.population.trainer import Trainer
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import batch_starts
from jaxnas.training.single import (
    continue_training,
    starting_state,
    training_config,
)
from jaxnas.training.task import Task

# Times the steps that a learning curve has, for which it says how it goes on: from
# 200 of them to 30,000 the steepest start promises the most.
FORESEEN = 8


def last_steps_ahead(
    config: Settings, clock: Clock, trainer: Trainer, winner: ArchitectureConfig
) -> int:
    """About as many as `last_steps`, before anything is measured."""
    if not clock.plans("final_steps"):
        return config.final_steps
    decided = clock.decided("final_steps ahead", int)
    if decided is not None:
        return decided
    left = max(0.0, clock.left(TRAINING_ENDS))
    steps = int(left / _predicted_step(trainer, winner))
    return clock.decide("final_steps ahead", steps)


def steps_ahead(
    clock: Clock, trainer: Trainer, typical: Callable[[], Sequence[ArchitectureConfig]]
) -> Ahead | None:
    """How many steps each model would do as the winner, told those that it has done.

    At the speed that was measured before the first plan: what a model is judged by
    does not change with what the run learns later. It trains for as long as the clock
    has decided (`ahead`), or for the last training's share of the budget; but not for
    longer than a typical model takes for `FORESEEN` times the steps that are done.

    Args:
      clock: of the budget.
      trainer: of the run.
      typical: some of the models that may be asked for.

    Returns:
      None where no seconds are planned for it.
    """
    ahead = clock.decided("ahead", float)
    if ahead is None:
        if not clock.plans("final_steps"):
            return None
        assert clock.budget is not None
        ahead = (TRAINING_ENDS - PHASES_END) * clock.budget
    seconds, pace = ahead, Pace()
    factors = clock.decided("pace", list[float]) or ()
    for kind, factor in zip(KINDS, factors, strict=False):
        pace.learn(kind, 1.0, factor)
    then = dataclasses.replace(trainer, pace=pace)

    usual = clock.decided("seconds of a step", float)
    if usual is None:
        steps = [_predicted_step(then, model) for model in typical()]
        usual = clock.decide("seconds of a step", float(np.median(steps)))

    @functools.lru_cache(maxsize=4096)
    def a_step(model: ArchitectureConfig) -> float:
        return _predicted_step(then, model)

    def ahead_of(model: ArchitectureConfig, done: int) -> float:
        return min(seconds, FORESEEN * done * usual) / a_step(training_config(model))

    return ahead_of


def _predicted_step(trainer: Trainer, model: ArchitectureConfig) -> float:
    """As it is predicted, in a program of its own."""
    compiling, training = [seconds_alone(trainer, [model], n) for n in (0, 1000)]
    return max(1e-6, (training - compiling) / 1000)


def last_steps(
    config: Settings,
    clock: Clock,
    model: ArchitectureConfig,
    task: Task,
    params: Params,
    ready: Callable[[float], None] = lambda seconds: None,
) -> int:
    """Steps that the winner trains on for: as set, or as many as there is time for.

    Args:
      config: of the run.
      clock: of its budget.
      model: the winner.
      task: see `Task`.
      params: the winner's.
      ready: given seconds, returns when all is as it will be while the winner
        trains, or when these are over; asked before a step is measured.
    """
    if not clock.plans("final_steps"):
        return config.final_steps
    return steps_in_time(clock, TRAINING_ENDS, model, task, params, ready)


def steps_in_time(
    clock: Clock,
    ends: float,
    model: ArchitectureConfig,
    task: Task,
    params: Params,
    ready: Callable[[float], None] = lambda seconds: None,
) -> int:
    """As many as there is time for until a share of the budget; see `last_steps`."""
    decided = clock.decided("final_steps", int)
    if decided is not None:
        return decided
    if clock.late(ends):
        return clock.decide("final_steps", 0)
    wait = lambda: ready(BESIDE * clock.left(ends))
    a_step = seconds_of_a_step(model, task, params, wait)
    return clock.decide("final_steps", max(0, int(clock.left(ends) / a_step)))


def seconds_of_a_step(
    model: ArchitectureConfig,
    task: Task,
    params: Params,
    ready: Callable[[], None] = lambda: None,
) -> float:
    """Measured, after compiling, in the program that will train on."""
    calls, settings = 4, task.settings
    steps = calls * settings.steps_per_call
    phase = PhaseLength(samples=steps * settings.batch, epochs=1)
    read = task.dataset.train if task.lesson is None else task.lesson.tokens
    starts = batch_starts(task.seed, len(read), settings, phase, "finish")
    begun = starting_state(model, task, params)
    ends: list[float] = []
    for _ in continue_training(model, task, begun, starts, "finish"):
        if not ends:
            ready()
        ends.append(time.monotonic())
    return (ends[-1] - ends[0]) / (steps - settings.steps_per_call)
