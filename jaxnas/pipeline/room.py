"""What a budget has time for, as it is asked while a run goes on."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from arch import ArchitectureConfig, Params
from jaxnas.clock import PHASES_END, TRAINING_ENDS, Clock, Deadline
from jaxnas.config import Settings
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.population.pace import KINDS, Pace
from jaxnas.population.planner import planner_for
from jaxnas.population.trainer import Trainer, seconds_at
from jaxnas.results.phases import Chosen
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import batch_starts
from jaxnas.training.phase import Phase
from jaxnas.training.settings import LAST_DECAY
from jaxnas.training.single import (
    continue_training,
    starting_state,
    training_config,
)
from jaxnas.training.task import Task

MOST_GENERATIONS = 1000  # where the clock bounds them

# Times the steps that a learning curve has, for which it says how it goes on: from
# 200 of them to 30,000 the steepest start promises the most.
FORESEEN = 8

_BESIDE = 0.5  # of the winner's last time, that what trains beside it may begin in
_LONGER = 2  # times the winner's last steps, that they may still become
_OFF = 0.04  # share by which a last training may miss its end before it is moved
_LATELY = 10  # calls that a step's seconds are known from


def room_of(
    clock: Clock, evaluator: Evaluator, deadline: Deadline
) -> Callable[[str, Sequence[ArchitectureConfig]], Sequence[int]]:
    """Which of a generation's candidates there is time for, the first first.

    After the end it is all of them: what is known of them counts, no more is trained.
    """

    def room(name: str, configs: Sequence[ArchitectureConfig]) -> Sequence[int]:
        places = range(len(configs))
        if clock.budget is None:
            return places
        chosen = clock.decided(name, list[int])
        if chosen is None:
            if deadline.ended is not None:
                return places
            left = deadline.left()

            def fit(places: Sequence[int]) -> bool:
                open_ = evaluator.untrained([configs[place] for place in places])
                return not open_ or evaluator.trainer.predicted_seconds(open_) <= left

            chosen = clock.decide(name, those_that(fit, places))
        return [place for place in chosen if place in places]

    return room


def those_that(
    fit: Callable[[Sequence[int]], bool], places: Sequence[int]
) -> list[int]:
    """Places that fit together: all, or one after the other those that still do."""
    if fit(places):
        return list(places)
    chosen: list[int] = []
    for place in places:
        if fit([*chosen, place]):
            chosen.append(place)
    return chosen


def most_that(fit: Callable[[int], bool], most: int) -> int:
    """The greatest number up to `most` that fits."""
    return next((number for number in range(most, 0, -1) if fit(number)), 0)


def room_for(clock: Clock, trainer: Trainer) -> Callable[[Phase, Chosen], Chosen]:
    """Those of the chosen that a phase has time for, the best first.

    The phases that are left share the time that is left equally.
    """

    def room(phase: Phase, chosen: Chosen) -> Chosen:
        if clock.budget is None:
            return chosen
        name = f"room {phase.name}"
        number = clock.decided(name, int)
        if number is None:
            part = clock.left(PHASES_END) / (len(trainer.rungs) - phase.rung)
            configs = [result.config for result in chosen.every]
            number = most_that(
                lambda most: trainer.predicted_seconds(configs[:most], phase) <= part,
                len(configs),
            )
            clock.decide(name, number)
        return Chosen(
            chosen.promoted[:number],
            chosen.lucky[: max(0, number - len(chosen.promoted))],
        )

    return room


def room_beside(
    clock: Clock,
    trainer: Trainer,
    models: Sequence[ArchitectureConfig],
    phase: Phase,
) -> list[ArchitectureConfig]:
    """Those that the winner's last training has room for: all, or the last that fits.

    Compiled and trained as far as the winner they take half of the time that is
    left for it at most.

    Args:
      clock: of the budget.
      trainer: of the run.
      models: the one that matters most comes last.
      phase: the winner's.
    """
    if clock.budget is None or not models:
        return list(models)
    places = clock.decided("beside", list[int])
    if places is None:
        steps, every = trainer.rungs[phase.rung].steps, range(len(models))
        most = _BESIDE * clock.left(TRAINING_ENDS)
        tried = [list(every), *([place] for place in reversed(every))]
        fitting = [
            places
            for places in tried
            if _seconds(trainer, [models[place] for place in places], steps) <= most
        ]
        places = clock.decide("beside", next(iter(fitting), []))
    return [models[place] for place in places]


def _seconds(
    trainer: Trainer, models: Sequence[ArchitectureConfig], steps: int
) -> float:
    """That these take, each in a program of its own and not scored."""
    machine, settings = trainer.machine, trainer.task.settings
    configs = [training_config(model) for model in models]
    plan = planner_for(machine, settings, steps, 0).plan(configs)
    return seconds_at(trainer.pace, plan, machine)


def last_steps_ahead(
    config: Settings, clock: Clock, trainer: Trainer, winner: ArchitectureConfig
) -> int:
    """About as many as `last_steps`, before anything is measured."""
    if "final_steps" not in (clock.decided("open", list[str]) or ()):
        return config.final_steps
    decided = clock.decided("final_steps ahead", int)
    if decided is not None:
        return decided
    left = max(0.0, clock.left(TRAINING_ENDS))
    steps = int(left / _seconds_of_a_step(trainer, winner))
    return clock.decide("final_steps ahead", steps)


def steps_ahead(
    clock: Clock, trainer: Trainer, typical: Callable[[], Sequence[ArchitectureConfig]]
) -> Callable[[ArchitectureConfig, int], float] | None:
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
        if "final_steps" not in (clock.decided("open", list[str]) or ()):
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
        steps = [_seconds_of_a_step(then, model) for model in typical()]
        usual = clock.decide("seconds of a step", float(np.median(steps)))

    @functools.lru_cache(maxsize=4096)
    def a_step(model: ArchitectureConfig) -> float:
        return _seconds_of_a_step(then, model)

    def ahead_of(model: ArchitectureConfig, done: int) -> float:
        return min(seconds, FORESEEN * done * usual) / a_step(training_config(model))

    return ahead_of


def _seconds_of_a_step(trainer: Trainer, model: ArchitectureConfig) -> float:
    """As it is predicted, in a program of its own."""
    compiling, training = [_seconds(trainer, [model], n) for n in (0, 1000)]
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
    if "final_steps" not in (clock.decided("open", list[str]) or ()):
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
    wait = lambda: ready(_BESIDE * clock.left(ends))
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
    tokens = len(task.dataset.train)
    starts = batch_starts(task.seed, tokens, settings, phase, "finish")
    begun = starting_state(model, task, params)
    ends: list[float] = []
    for _ in continue_training(model, task, begun, starts, "finish"):
        if not ends:
            ready()
        ends.append(time.monotonic())
    return (ends[-1] - ends[0]) / (steps - settings.steps_per_call)


class Fixed(NamedTuple):
    """A training that ends as it was planned; see `jaxnas.pipeline.winner.End`."""

    steps: int

    @property
    def most(self) -> int:
        """As planned."""
        return self.steps

    @property
    def now(self) -> int:
        """As planned."""
        return self.steps

    def at(self, done: int) -> int:
        """As planned."""
        del done
        return self.steps

    def ended(self, done: int) -> None:
        """Nothing is recorded."""


class Moving:
    """When a last training ends: as planned, moved if the time needs it.

    Steps may take longer than they were measured, or less long. Each move is
    recorded, with the step at which it was made, and made there again by a resume.
    """

    def __init__(
        self,
        clock: Clock,
        name: str,
        steps: int,
        most: int,
        decay_share: float,
        target: Callable[[], int] | None = None,
        ends: float = TRAINING_ENDS,
    ) -> None:
        """Ends by a share of the budget.

        Args:
          clock: of the budget.
          name: under which moves are recorded.
          steps: as planned.
          most: that windows are drawn for.
          decay_share: of the steps, in which the learning rate decays; none are added
            once half of that is done, for the rate would rise again.
          target: steps that are wanted, if there is time; by default `most`.
          ends: the share.
        """
        self._ends = ends
        self.steps, self.most, self.now = steps, most, steps
        self._clock, self._name, self._decay = clock, name, decay_share
        self._target = target or (lambda: most)
        self._times: list[tuple[int, float]] = []

    def at(self, done: int) -> int:
        """At which step the training ends, as far as known after so many."""
        self.now = self._at(done)
        return self.now

    def ended(self, done: int) -> None:
        """Records that it has ended: a resume moves nothing more."""
        self._clock.decide(f"{self._name} ended", done)

    def _at(self, done: int) -> int:
        end = self.steps
        for number in itertools.count(1):
            name = f"{self._name} moved {number}"
            if (moved := self._clock.decided(name, tuple[int, int])) is None:
                break
            if done < moved[0]:
                return end
            end = moved[1]
        if self._clock.decided(f"{self._name} ended", int) is not None:
            return end
        self._times = [*self._times[-_LATELY:], (done, time.monotonic())]
        other = self._other(end)
        return end if other is None else self._clock.decide(name, [done, other])[1]

    def _other(self, end: int) -> int | None:
        """At which other step it has to end, if the one decided is wrong."""
        (first, began), (done, now) = self._times[0], self._times[-1]
        left = self._clock.left(self._ends)
        if left <= 0:
            return done if done < end else None
        if done == first:
            return None
        fits = done + int(left * (done - first) / (now - began))
        other = max(done, min(self.most, fits, self._target()))
        decays = done >= end - self._decay / 2 * end
        if abs(other - end) <= _OFF * end or (other > end and decays):
            return None
        return other


def last_end(config: Settings, clock: Clock, steps: int) -> Fixed | Moving:
    """When the winner's last training ends; `steps` as by `last_steps`."""
    if "final_steps" not in (clock.decided("open", list[str]) or ()):
        return Fixed(steps)
    most = _LONGER * steps
    return Moving(clock, "final_steps", steps, most, LAST_DECAY)
