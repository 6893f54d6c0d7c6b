"""From a time budget to phases, population and generations."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from arch import ArchitectureConfig
from jaxnas.analytic.cost_table import CostTable
from jaxnas.clock import (
    NO_LAST,
    PHASES_END,
    SEARCH_ENDS,
    TRAINING_ENDS,
    Clock,
    clock_words,
)
from jaxnas.config import RunConfig, Settings
from jaxnas.errors import UsageError
from jaxnas.pipeline.build import compressions_ahead
from jaxnas.pipeline.promotion import number_promoted
from jaxnas.population.devices import Machine
from jaxnas.population.pace import KINDS, Pace
from jaxnas.population.plan import Plan
from jaxnas.population.planner import planner_for
from jaxnas.population.probe import Probed, probe
from jaxnas.population.program import compressed_on_host
from jaxnas.population.trainer import Trainer, seconds_at
from jaxnas.runtime import backend
from jaxnas.storage.jsonl import Json
from jaxnas.training.lengths import steps_of
from jaxnas.training.single import training_config
from jaxnas.training.task import Task
from jaxnas.wording import counted

TRIED = 12  # candidates that the forecast is made for
LONG = 1800.0  # seconds, for each of which a generation may have as many
PLANNED = ("phases", "population", "generations", "final_steps")

ENOUGH_TOKENS = 100_000  # that a candidate is to see, before there are more of them
CANDIDATES = 24  # of so many tokens, before there are longer trainings
MANY = 5 * TRIED  # candidates from which on trainings are longer instead
LONGEST = 10  # times enough; then there are more candidates again
FEWEST_CANDIDATES, FEWEST_STEPS = 8, 50  # what a search needs to find anything
_COMPILING = 2.0  # times its training, that a candidate may compile where time is short

BUSY = 1.5  # times as long as predicted, from which on a small start's steps are told

_REUSED = 0.5  # what later candidates compile, of what the first ones do
_PLANNED_SHARE = 0.9  # of the search's time; for asking, telling and what goes wrong
_LONGER, _SHORTEST = 4.0, 1.3  # how much longer a phase is than the one before


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """What a budget has room for."""

    phases: tuple[int, ...]  # steps at the end of each
    population: int
    candidates: int  # in all

    @property
    def generations(self) -> int:
        """About as many as there is time for."""
        return math.ceil(self.candidates / self.population)

    @property
    def poor(self) -> bool:
        """Whether these are too few to find anything by."""
        return self.candidates < FEWEST_CANDIDATES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """Seconds that candidates take, by those of a generation of `TRIED`.

    Attributes:
      base: of one, whatever its steps: compiling and scoring.
      a_step: of one.
    """

    base: float
    a_step: float

    @classmethod
    def of(cls, predicted: Callable[[int], float], steps: int) -> "Forecast":
        """From the seconds that a generation takes if each trains for so many steps."""
        base = predicted(0)
        a_step = max(1e-6, (predicted(steps) - base) / steps)
        return cls(base=base / TRIED, a_step=a_step / TRIED)

    def candidates(self, seconds: float, steps: int) -> float:
        """How many there is time for."""
        number = seconds / (self.base + self.a_step * steps)
        if number <= TRIED:
            return number
        seconds -= self.base * TRIED * (1 - _REUSED)
        return seconds / (_REUSED * self.base + self.a_step * steps)

    def steps(self, seconds: float, candidates: int) -> float:
        """How many each of so many candidates has time for; may be below zero."""
        first = min(TRIED, candidates)
        compiled = self.base * (first + _REUSED * (candidates - first))
        return (seconds - compiled) / (self.a_step * candidates)


def outline(
    forecast: Forecast,
    presets: Sequence[int],
    left: Callable[[float], float],
    distinct: int,
    *,
    enough: int,
    population: int,
    fixed: bool = False,
    survivors: Callable[[int], int] = lambda candidates: 4,
) -> Outline:
    """Fits phases and generations into the seconds that are left.

    Candidates before steps, up to `CANDIDATES` of them with `enough` steps; then more
    candidates, then longer phases. With less time fewer steps, then fewer candidates.

    Args:
      forecast: what candidates take.
      presets: steps at the end of each phase.
      left: seconds until a share of the budget is spent.
      distinct: models that the limits allow.
      enough: steps of a candidate.
      population: of each generation.
      fixed: whether the phases are as they are.
      survivors: told of the first phase's candidates, how many places for trainings
        the later phases take.
    """
    search = _PLANNED_SHARE * max(0.0, left(SEARCH_ENDS))
    later = left(PHASES_END) - left(SEARCH_ENDS)
    first = presets[0] if fixed else _first_phase(forecast, search, distinct, enough)
    number = max(1, min(distinct, int(forecast.candidates(search, first))))
    phases = tuple(presets)
    if not fixed:
        a_step = forecast.a_step * survivors(number)
        phases = _phases(first, len(presets) - 1, a_step, later)
    return Outline(phases=phases, population=population, candidates=number)


def _first_phase(forecast: Forecast, search: float, distinct: int, enough: int) -> int:
    """Its steps; a candidate is not compiled for a few of them."""
    steps = forecast.steps(search, min(distinct, CANDIDATES))
    if steps >= enough:
        longer = forecast.steps(search, min(distinct, MANY))
        return int(min(max(enough, longer), LONGEST * enough))
    worth = forecast.base / forecast.a_step / _COMPILING
    return int(min(max(FEWEST_STEPS, steps, worth), max(FEWEST_STEPS, enough)))


def _phases(first: int, more: int, a_step: float, later: float) -> tuple[int, ...]:
    """The first phase, and those after it that have room for the survivors.

    Args:
      first: its steps.
      more: phases at most, each in an equal part of the time.
      a_step: seconds of all survivors.
      later: seconds for all phases after the first.
    """
    phases = [first]
    for _ in range(more):
        before = phases[-1]
        fits = 0.8 * before + later / more / a_step  # less the decay of the one before
        if fits < _SHORTEST * before:
            break
        phases.append(int(min(fits, _LONGER * before)))
    return tuple(phases)


def fit_to_budget(
    given: RunConfig,
    config: Settings,
    table: CostTable,
    task: Task,
    machine: Machine,
    clock: Clock,
    pace: Pace,
    first: Callable[[Settings], Sequence[ArchitectureConfig]],
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Settings, Probed | None]:
    """The resolved config with room for all that the budget is to hold.

    Args:
      given: as the user wrote it: what is open there may be planned.
      config: resolved.
      table: of the space that is searched, and which models the limits allow.
      task: see `Task`.
      machine: what it trains on.
      clock: since the run began.
      pace: learns from a small start.
      first: which candidates the first generation trains, of such a population.
      say: told, in a line, if the budget has room for too little.

    Returns:
      The settings, and what the small start compiled, if there was one.
    """
    if clock.budget is None:
        return config, None
    planned, probed = clock.decided("planned", Json), None
    if planned is None:
        clock.decide("open", [name for name in PLANNED if getattr(given, name) is None])
        if given.final_steps == 0:
            clock.decide(NO_LAST, True)
        population = given.population or _population(config, table, clock.budget)
        config = dataclasses.replace(config, population=population)
        tried = list(dict.fromkeys(map(training_config, first(config))))[:TRIED]
        probed, found = _plan(given, config, table, task, machine, clock, pace, tried)
        if found.poor:
            say(_poor(found))
        planned = _settings_of(found, given, task)
        clock.decide("pace", [pace.factor(kind) for kind in KINDS])
        clock.decide("candidates", found.candidates)
        clock.decide("planned", planned)
    else:
        factors = clock.decided("pace", list[float])
        for kind, factor in zip(KINDS, factors or (), strict=False):
            pace.learn(kind, 1.0, factor)
    if not planned.keys() <= {field.name for field in dataclasses.fields(given)}:
        raise UsageError(f"the budget's plan is damaged: it has {sorted(planned)}")
    settings = dataclasses.replace(given, **planned)
    return settings.resolve(backend()), probed


def before_plan(given: RunConfig, clock: Clock) -> RunConfig:
    """The settings as they were before the budget decided any of them."""
    opened: dict[str, Any] = dict.fromkeys(planned_by(clock))
    return dataclasses.replace(given, **opened)


def planned_by(clock: Clock) -> set[str]:
    """The settings that the budget decides, as far as the user left them open."""
    names = {
        *(clock.decided("open", list[str]) or ()),
        *(clock.decided("planned", Json) or ()),
    }
    return names | ({"samples", "epochs"} if "phases" in names else set())


def _population(config: Settings, table: CostTable, budget: float) -> int:
    """Of a generation: a short search needs several, to learn from them."""
    most = TRIED * max(1, int(budget / LONG))
    return min(config.population, most, table.feasible)


def _plan(
    given: RunConfig,
    config: Settings,
    table: CostTable,
    task: Task,
    machine: Machine,
    clock: Clock,
    pace: Pace,
    tried: Sequence[ArchitectureConfig],
) -> tuple[Probed, Outline]:
    """What there is room for; `tried` are trained first, the rest as above."""
    settings = task.settings
    scoring = config.eval_windows / (3 * settings.batch)
    presets = [steps_of(phase, settings) for phase in config.named_phases().values()]

    def plan(steps: int) -> Plan:
        return planner_for(machine, settings, steps, scoring).plan(tried)

    def predicted(steps: int) -> float:
        return seconds_at(pace, plan(steps), machine) * TRIED / len(tried)

    def survivors(candidates: int) -> int:
        number = number_promoted(candidates, config.promote_share) + config.lucky
        at_once = machine.workers * machine.number
        return math.ceil(number / at_once) * at_once

    ahead = compressions_ahead(config, table.space)
    built_in = len(ahead) == 1 and not compressed_on_host(machine.devices[0])
    probed = probe(
        pace,
        plan(presets[0]),
        presets[0] + scoring,
        task,
        len(task.windows("validation", config.eval_windows)),
        ahead[0] if built_in else None,
        machine,
    )
    return probed, outline(
        Forecast.of(predicted, presets[0]),
        presets,
        clock.left,
        table.feasible,
        enough=max(1, round(ENOUGH_TOKENS / (settings.batch * settings.window))),
        population=config.population,
        fixed=_settled(given),
        survivors=survivors,
    )


def with_later_phases(
    config: Settings,
    clock: Clock,
    trainer: Trainer,
    promoted: Sequence[ArchitectureConfig],
) -> Settings:
    """The settings with later phases as long as there is time for after the search.

    Args:
      config: as the search had it.
      clock: of the budget.
      trainer: of its phases, with what it has learned.
      promoted: from the first phase.
    """
    rungs, settings = trainer.rungs, trainer.task.settings
    if not clock.plans("phases") or len(rungs) < 2:
        return config
    text = clock.decided("phases", str)
    if text is None:
        seconds = trainer.predicted_seconds(promoted, trainer.phases[1])
        a_step = max(1e-6, seconds / rungs[1].new_steps)
        later = _PLANNED_SHARE * clock.left(PHASES_END)
        phases = _phases(rungs[0].steps, len(rungs) - 1, a_step, later)
        if len(phases) == 1:  # there is no time for one that is worth it
            phases = tuple(rung.steps for rung in rungs)
        text = ",".join(str(steps * settings.batch) for steps in phases)
        clock.decide("phases", text)
    return dataclasses.replace(config, phases=text)


def _settled(given: RunConfig) -> bool:
    """Whether the phases are the user's."""
    names = ("phases", "samples", "epochs")
    return any(getattr(given, name) is not None for name in names)


def _settings_of(found: Outline, given: RunConfig, task: Task) -> dict[str, str | int]:
    """The open settings that are planned."""
    planned: dict[str, str | int] = {
        "population": found.population,
        "generations": found.generations,
        "repeats": 0,  # the time is the winner's
    }
    if not _settled(given):
        texts = [str(steps * task.settings.batch) for steps in found.phases]
        planned["phases"] = ",".join(texts)
    return {
        name: value for name, value in planned.items() if getattr(given, name) is None
    }


def _poor(found: Outline) -> str:
    return (
        f"warning: there is time for about {found.candidates} candidates of "
        f"{found.phases[0]} steps, too few to find much: more time (--budget), "
        f"tighter limits (--max-size, --max-latency) or, in a search, a smaller space "
        f"(--space) would help"
    )


def words(config: Settings, clock: Clock) -> str | None:
    """What a run with a budget is about to do."""
    if clock.budget is None:
        return None
    until = {
        share: clock_words(clock.ends(share))
        for share in (SEARCH_ENDS, PHASES_END, TRAINING_ENDS)
    }
    later = list(config.named_phases())[1:]
    phases = f", phases {' and '.join(later)} until {until[PHASES_END]}"
    last = f"until {until[TRAINING_ENDS]}"
    if not clock.plans("final_steps"):
        last = f"for {counted(config.final_steps, 'step')}"
    said = (
        f"budget       {clock_words(clock.budget)}, of which "
        f"{clock_words(clock.spent())} are spent: search until "
        f"{until[SEARCH_ENDS]}{phases if later else ''}, the winner trains on {last}"
    )
    pace = dict(zip(KINDS, clock.decided("pace", list[float]) or (), strict=False))
    if pace.get("call", 1.0) >= BUSY:
        said += (
            f"\n             steps take {pace['call']:.1f} times as long here as on "
            f"the machine that predictions are from: a slower one, or a busy one"
        )
    return said
