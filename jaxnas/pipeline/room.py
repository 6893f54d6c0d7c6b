"""What a budget has time for, as it is asked while a run goes on."""

from collections.abc import Callable, Sequence

from arch import ArchitectureConfig
from jaxnas.clock import PHASES_END, TRAINING_ENDS, Clock, Deadline
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.population.planner import planner_for
from jaxnas.population.trainer import Trainer, seconds_at
from jaxnas.results.phases import Chosen
from jaxnas.training.phase import Phase
from jaxnas.training.single import training_config

MOST_GENERATIONS = 1000  # where the clock bounds them

BESIDE = 0.5  # of the winner's last time, that what trains beside it may begin in


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
        most = BESIDE * clock.left(TRAINING_ENDS)
        tried = [list(every), *([place] for place in reversed(every))]
        fitting = [
            places
            for places in tried
            if seconds_alone(trainer, [models[at] for at in places], steps) <= most
        ]
        places = clock.decide("beside", next(iter(fitting), []))
    return [models[place] for place in places]


def seconds_alone(
    trainer: Trainer, models: Sequence[ArchitectureConfig], steps: int
) -> float:
    """That these take, each in a program of its own and not scored."""
    machine, settings = trainer.machine, trainer.task.settings
    configs = [training_config(model) for model in models]
    plan = planner_for(machine, settings, steps, 0).plan(configs)
    return seconds_at(trainer.pace, plan, machine)
