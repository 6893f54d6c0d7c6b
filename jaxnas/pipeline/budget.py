"""From a time budget to phases, population and generations, and where each stops."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence

import jax

from arch import ArchitectureConfig, Params
from arch.cost import size_mib
from arch.space import Space
from jaxnas.clock import (
    PHASES_END,
    SEARCH_ENDS,
    TRAINING_ENDS,
    Clock,
    clock_words,
)
from jaxnas.config import RunConfig, Settings
from jaxnas.keys import key_of
from jaxnas.population.devices import Machine
from jaxnas.population.planner import planner_for
from jaxnas.population.trainer import Trainer
from jaxnas.presets import PRESETS
from jaxnas.results.phases import Chosen
from jaxnas.storage.jsonl import Json
from jaxnas.training.lengths import PhaseLength, steps_of
from jaxnas.training.loop import batch_starts
from jaxnas.training.phase import Phase
from jaxnas.training.single import (
    continue_training,
    starting_state,
    training_config,
)
from jaxnas.training.task import Task

_FEWEST_STEPS = 20
TRIED = 12  # candidates that the forecast is made for
_SURVIVORS = 5  # of whom the later phases are made
DRAWN = 20 * TRIED  # candidates, of which some may be too large
_BESIDE = 1 / 3  # of the winner's last time, that what trains beside it may begin in
PLANNED = ("phases", "population", "generations", "final_steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """What a budget has room for."""

    phases: tuple[int, ...]  # steps at the end of each
    population: int
    generations: int  # at most: the clock may end the search before


def outline(
    predicted: Callable[[int], float],
    presets: tuple[int, ...],
    left: Callable[[float], float],
    distinct: int,
    *,
    fixed: bool = False,
    population: int | None = None,
) -> Outline:
    """Fits phases, population and generations into the seconds that are left.

    Args:
      predicted: seconds that a generation of `TRIED` candidates takes if each
        trains for this many steps, compilation included.
      presets: steps at the end of each phase; never more than these.
      left: seconds until a share of the budget is spent.
      distinct: models in the space.
      fixed: whether the phases are as they are.
      population: of each generation, if it is settled.
    """
    search, later = left(SEARCH_ENDS), left(PHASES_END) - left(SEARCH_ENDS)
    base = predicted(0)
    a_step = max(1e-6, (predicted(presets[0]) - base) / presets[0])  # of all
    fits = int((0.6 * search - base) / a_step)
    fewest = presets[0] if fixed else min(_FEWEST_STEPS, presets[0])
    first = max(fewest, min(presets[0], fits))
    each = a_step * first / TRIED + 0.05 * base / TRIED  # one more candidate
    if population is None:
        population = int(max(4, min(50, distinct, 0.15 * search / each)))
    room = max(search - base, 0.0) / (each * population)
    generations = int(max(1, min(100, math.ceil(1.5 * room))))
    phases = presets if fixed else _phases(first, presets, a_step / TRIED, later)
    return Outline(phases=phases, population=population, generations=generations)


def _phases(
    first: int, presets: tuple[int, ...], a_step: float, later: float
) -> tuple[int, ...]:
    """As many as have room for the survivors, each in an equal part of the time.

    Args:
      first: steps of the first phase.
      presets: steps at the end of each, at most.
      a_step: seconds of one candidate.
      later: seconds for all phases after the first.
    """
    phases, costs = [first], []
    for longest in presets[1:]:
        steps = min(longest, 4 * phases[-1])
        if steps <= phases[-1]:
            break
        costs.append(_SURVIVORS * a_step * (steps - 0.8 * phases[-1]))
        phases.append(steps)
    while costs and max(costs) > later / len(costs):
        costs.pop()
        phases.pop()
    return tuple(phases)


def fit_to_budget(
    given: RunConfig,
    config: Settings,
    space: Space,
    task: Task,
    machine: Machine,
    clock: Clock,
) -> Settings:
    """The resolved config with room for all that the budget is to hold.

    Args:
      given: as the user wrote it: what is open there may be planned.
      config: resolved.
      space: that is searched.
      task: see `Task`.
      machine: what it trains on.
      clock: since the run began.
    """
    if clock.budget is None:
        return config
    planned = clock.decided("planned")
    if planned is None:
        planned = _planned(given, config, space, task, machine, clock)
        opened = [name for name in PLANNED if getattr(given, name) is None]
        clock.decide("open", opened)
        clock.decide("planned", planned)
    return dataclasses.replace(given, **planned).resolve(jax.default_backend())


def _planned(
    given: RunConfig,
    config: Settings,
    space: Space,
    task: Task,
    machine: Machine,
    clock: Clock,
) -> dict[str, str | int]:
    """The open settings that are planned; arguments as for `fit_to_budget`."""
    settings = task.settings
    tried = _tried(config, space, task)
    scoring = config.eval_windows / (3 * settings.batch)

    def predicted(steps: int) -> float:
        planner = planner_for(machine, settings, steps, scoring)
        return planner.plan(list(tried)).seconds * TRIED / len(tried)

    fixed = any(
        getattr(given, name) is not None for name in ("phases", "samples", "epochs")
    )
    phases = config.named_phases() if fixed else PRESETS[config.preset].phases
    found = outline(
        predicted,
        tuple(steps_of(phase, settings) for phase in phases.values()),
        clock.left,
        space.distinct_count,
        fixed=fixed,
        population=given.population,
    )
    planned: dict[str, str | int] = {
        "population": found.population,
        "generations": found.generations,
        "repeats": 0,  # the time is the winner's
    }
    if not fixed:
        texts = [str(steps * settings.batch) for steps in found.phases]
        planned["phases"] = ",".join(texts)
    return {
        name: value for name, value in planned.items() if getattr(given, name) is None
    }


def _tried(config: Settings, space: Space, task: Task) -> set[ArchitectureConfig]:
    """Trainings to predict a generation with: of candidates that may be trained."""
    fields = {
        "vocab_size": task.dataset.vocab_size,
        "max_seq_length": task.settings.window,
    }
    sample = space.sample(key_of(config.seed, "outlook"), DRAWN)
    drawn = [space.decode(genome, **fields) for genome in sample]
    small = [one for one in drawn if size_mib(one) <= config.max_size]
    return {training_config(one) for one in (small or drawn)[:TRIED]}


def words(config: Settings, clock: Clock) -> str | None:
    """What a run with a budget is about to do."""
    if clock.budget is None:
        return None
    until = {
        share: clock_words(share * clock.budget)
        for share in (SEARCH_ENDS, PHASES_END, TRAINING_ENDS)
    }
    later = list(config.named_phases())[1:]
    phases = f", phases {' and '.join(later)} until {until[PHASES_END]}"
    return (
        f"budget       {clock_words(clock.budget)}, of which "
        f"{clock_words(clock.spent())} are spent: search until "
        f"{until[SEARCH_ENDS]}{phases if later else ''}, the winner trains on until "
        f"{until[TRAINING_ENDS]}"
    )


def room_for(clock: Clock, trainer: Trainer) -> Callable[[Phase, Chosen], Chosen]:
    """Those of the chosen that a phase has time for, the best first.

    The phases that are left share the time that is left equally.
    """

    def room(phase: Phase, chosen: Chosen) -> Chosen:
        if clock.budget is None:
            return chosen
        name = f"room {phase.name}"
        number = clock.decided(name)
        if number is None:
            number = len(chosen.every)
            part = clock.left(PHASES_END) / (len(trainer.rungs) - phase.rung)
            configs = [result.config for result in chosen.every]
            while number and trainer.predicted_seconds(configs[:number], phase) > part:
                number -= 1
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
    timings: Iterable[Json],
) -> list[ArchitectureConfig]:
    """Those that the winner's last training has room for: all, or the last that fits.

    Compiled and trained as far as the winner they take a third of the time that is
    left for it at most; predicted, in the proportion in which the run's plans took
    longer than predicted so far.

    Args:
      clock: of the budget.
      trainer: of the run.
      models: the one that matters most comes last.
      phase: the winner's.
      timings: of the run.
    """
    if clock.budget is None or not models:
        return list(models)
    places = clock.decided("beside")
    if places is None:
        steps, every = trainer.rungs[phase.rung].steps, range(len(models))
        planner = planner_for(trainer.machine, trainer.task.settings, steps, 0)
        most = _BESIDE * clock.left(TRAINING_ENDS) / _slowness(timings)

        def fit(places: list[int]) -> bool:
            configs = [training_config(models[place]) for place in places]
            return planner.plan(configs).seconds <= most

        tried = [list(every), *([place] for place in reversed(every))]
        places = clock.decide("beside", next(filter(fit, tried), []))
    return [models[place] for place in places]


def _slowness(timings: Iterable[Json]) -> float:
    """Seconds that plans took over those predicted, at least 1."""
    ran = [row for row in timings if "predicted" in row and "seconds" in row]
    predicted = sum(row["predicted"] for row in ran)
    taken = sum(row["seconds"] for row in ran)
    return max(1.0, taken / predicted) if predicted else 1.0


def last_steps_ahead(
    config: Settings, clock: Clock, trainer: Trainer, winner: ArchitectureConfig
) -> int:
    """About as many as `last_steps`, before anything is measured."""
    if "final_steps" not in (clock.decided("open") or ()):
        return config.final_steps
    decided = clock.decided("final_steps ahead")
    if decided is not None:
        return decided
    seconds = [
        planner_for(trainer.machine, trainer.task.settings, steps, 0)
        .plan([training_config(winner)])
        .seconds
        for steps in (0, 1000)
    ]
    a_step = max(1e-6, (seconds[1] - seconds[0]) / 1000)
    left = max(0.0, clock.left(TRAINING_ENDS))
    return clock.decide("final_steps ahead", int(left / a_step))


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
    if "final_steps" not in (clock.decided("open") or ()):
        return config.final_steps
    decided = clock.decided("final_steps")
    if decided is not None:
        return decided
    if clock.late(TRAINING_ENDS):
        return clock.decide("final_steps", 0)
    wait = lambda: ready(_BESIDE * clock.left(TRAINING_ENDS))
    a_step = _seconds_of_a_step(model, task, params, wait)
    return clock.decide("final_steps", max(0, int(clock.left(TRAINING_ENDS) / a_step)))


def _seconds_of_a_step(
    model: ArchitectureConfig, task: Task, params: Params, ready: Callable[[], None]
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
