"""One call of a program: its members train from a step to the end, and are scored."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from arch import ArchitectureConfig
from jaxnas.compress import pruned_in_place
from jaxnas.population.lanes import Group, Running
from jaxnas.population.program import Compiled, Program
from jaxnas.training.curves import Curve, points_of
from jaxnas.training.loop import Schedule, TrainState, fresh_state
from jaxnas.training.scoring import Compression, Metrics
from jaxnas.training.single import TrainingFailed
from jaxnas.training.stopping import diverged, is_flat
from jaxnas.training.task import Task

# Candidates of a call's lanes, by their place; None is done already.
Places: TypeAlias = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one candidate; trees are in its own shape, on the host."""

    place: int  # among the plan's candidates
    program: Program  # it was trained in
    seconds: float = 0.0  # of its call
    loss: float = math.nan  # the last one of training
    params: dict | None = None  # None if it failed
    pruned: dict[float, dict] = dataclasses.field(default_factory=dict)  # recovered
    state: TrainState | None = None  # what goes on, if the work keeps one
    stopped: int | None = None  # the step at which its loss was flat, if it was
    curve: Curve = ()  # of the stable part
    metrics: dict[Compression, Metrics | None] = dataclasses.field(default_factory=dict)
    error: Exception | None = None
    trace: str = ""

    def weights_for(self, ratio: float) -> dict | None:
        """The weights that were scored with this pruning ratio."""
        return self.pruned.get(ratio, self.params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What all members of a plan do.

    Attributes:
      task: see `Task`.
      starts: i32[steps, B], from `batch_starts`.
      windows: i32[N, T+1], to score on.
      wanted: candidate -> compressions to score it after.
      schedule: of the training; None is the settings', over all steps.
      begin: the first step to do.
      begun: candidate -> its state after `begin` steps; not called for 0.
      keep: the step after which states are handed out; None for no step.
      flat: share of its loss that a training has to win over half of its steps
        to go on; 0 lets all go on.
      recovery: i32[R, B], steps that pruned weights train on for; None for none.
    """

    task: Task
    starts: np.ndarray
    windows: np.ndarray
    wanted: Callable[[int], Sequence[Compression]]
    schedule: Schedule | None = None
    begin: int = 0
    begun: Callable[[int], TrainState] | None = None
    keep: int | None = None
    flat: float = 0.0
    recovery: np.ndarray | None = None

    @property
    def followed(self) -> Schedule:
        """The schedule that trainings follow."""
        if self.schedule is not None:
            return self.schedule
        return Schedule.over(len(self.starts), self.task.settings)


class _Curves(NamedTuple):
    """What the steps of a call left behind."""

    losses: np.ndarray  # f32[lanes], the last ones
    failed: dict[int, TrainingFailed]  # lane -> why
    states: list[TrainState | None]  # [lanes]
    stopped: list[int | None]  # [lanes]
    stable: list[Curve]  # [lanes]


def train_call(
    program: Program,
    places: Places,
    candidates: Sequence[ArchitectureConfig | None],
    work: Work,
    compiled: Compiled,
    device: jax.Device,
    on_steps: Callable[[int, float], None],
) -> list[Outcome]:
    """Trains and scores the members of a call.

    Args:
      program: to run.
      places: a candidate for each lane.
      candidates: by their place.
      work: see `Work`.
      compiled: the program, for the device.
      device: where it runs.
      on_steps: told of steps done and a loss; what it raises ends the call.
    """
    # Who is done leaves a lane to a copy: the others keep theirs.
    [filler, *_] = [place for place in places if place is not None]
    members = [filler if place is None else place for place in places]
    configs = [one for place in members if (one := candidates[place]) is not None]
    group = Group(program=program, configs=configs)
    begun = None
    if work.begin and work.begun is not None:
        begun = [work.begun(place) for place in members]
    running = Running(group, work.task, work.followed, device, begun=begun)
    curves = _steps(running, compiled, work, on_steps)
    wanted = [() if place is None else tuple(work.wanted(place)) for place in places]
    every = list(dict.fromkeys(one for each in wanted for one in each))
    scores = _Scores([None] * len(places), [{} for _ in places], [{} for _ in places])
    if len(curves.failed) < len(places):
        scores = _scored(running, every, work, compiled, device, on_steps)
    outcomes = []
    for lane, place in enumerate(places):
        if place is None:
            continue
        outcome = Outcome(place=place, program=program)
        if lane in curves.failed:
            error = curves.failed[lane]
            outcome = dataclasses.replace(outcome, error=error, trace=f"{error}\n")
        else:
            outcome = dataclasses.replace(
                outcome,
                loss=float(curves.losses[lane]),
                params=scores.params[lane],
                pruned=scores.pruned[lane],
                state=curves.states[lane],
                stopped=curves.stopped[lane],
                curve=curves.stable[lane],
                metrics={one: scores.metrics[lane][one] for one in wanted[lane]},
            )
        outcomes.append(outcome)
    return outcomes


class _Scores(NamedTuple):
    """The weights of a call's lanes, and what they are worth."""

    params: Sequence[dict | None]
    pruned: list[dict[float, dict]]  # by ratio, after their recovery
    metrics: list[dict[Compression, Metrics | None]]


def _scored(
    running: Running,
    every: Sequence[Compression],
    work: Work,
    compiled,
    device,
    on_steps,
) -> _Scores:
    """Scores the members after each compression, pruned ones after a recovery."""
    running.drop_moments()
    group, params, score = running.group, running.params(), compiled.score
    metrics: list[dict[Compression, Metrics | None]] = [{} for _ in params]
    pruned: list[dict[float, dict]] = [{} for _ in params]
    if score is None or not every:
        return _Scores(params, pruned, metrics)
    ratios = {one.pruning_ratio for one in every} - {0.0}
    ratios = set() if work.recovery is None else ratios
    if plain := [one for one in every if one.pruning_ratio not in ratios]:
        _add(metrics, running.score(score, work.windows, plain))
    running.drop()  # room for the others
    for ratio in sorted(ratios):
        again = _recovered(group, work, compiled, device, params, ratio, on_steps)
        for lane, weights in enumerate(again.params()):
            pruned[lane][ratio] = weights
        asked = [one for one in every if one.pruning_ratio == ratio]
        _add(metrics, again.score(score, work.windows, asked))
        again.drop()
    return _Scores(params, pruned, metrics)


def _steps(running: Running, compiled: Compiled, work: Work, on_steps) -> _Curves:
    """Trains each member to its end: the work's, or after it was found flat.

    A member is judged where it would be judged alone, whoever is beside it. One
    that has ended stays as it is, for its learning rate is zero.
    """
    settings, schedule = work.task.settings, work.followed
    size, total, stable = settings.steps_per_call, len(work.starts), _stable(schedule)
    configs = running.group.configs
    lanes = range(len(configs))
    ends, schedules = [total for _ in lanes], [schedule for _ in lanes]
    failed: dict[int, TrainingFailed] = {}
    states: list[TrainState | None] = [None for _ in lanes]
    stopped: list[int | None] = [None for _ in lanes]
    last = np.full(len(configs), np.nan, np.float32)
    curve: list[np.ndarray] = []  # while the learning rate is constant
    recent: list[np.ndarray] = []  # since all were judged
    step = judged = first = work.begin
    while alive := [at for at in lanes if at not in failed and step < ends[at]]:
        # All are judged at regular steps, and where states are kept, where the
        # decay begins, and at the end.
        regular = step + size - (step - work.begin) % size
        everyone = min(
            stop for stop in (regular, work.keep, stable, total) if stop and stop > step
        )
        until = min(everyone, *(ends[lane] for lane in alive))
        losses = running.advance(compiled.train, work.starts[step:until])
        on_steps(until - step, float(losses[alive[0], -1]))
        recent.append(losses)
        step = until
        since = np.concatenate(recent, axis=1)
        warm = bool(judged >= schedule.warmup)
        for lane in alive:
            last[lane] = losses[lane, -1]
            if step in (everyone, ends[lane]):
                vocabulary = configs[lane].vocab_size
                why = diverged(since[lane], judged, vocabulary, warm)
                if why is not None:
                    failed[lane] = TrainingFailed(why)
        if step < everyone:
            continue
        if warm and step <= stable:
            first = first if curve else judged
            curve.append(since)
        judged, recent = step, []
        going = [at for at in alive if at not in failed and stopped[at] is None]
        flat = _flat(going, curve, work, step)
        for lane in flat:
            stopped[lane] = step
            ends[lane] = min(total, step + math.ceil(schedule.decay))
            schedules[lane] = schedule._replace(total=float(ends[lane]))
        if flat:
            running.follow(schedules)
        kept = going if step == work.keep else flat
        if kept:
            found = running.states()
            for lane in kept:
                states[lane] = found[lane]
    every = np.concatenate(curve, axis=1) if curve else np.zeros((len(configs), 0))
    curves = [
        points_of(losses[: None if end is None else end - first], first)
        for losses, end in zip(every, stopped, strict=True)
    ]
    return _Curves(last, failed, states, stopped, curves)


def _stable(schedule: Schedule) -> int:
    """Steps before the decay."""
    return int(schedule.total - schedule.decay)


def _flat(
    going: Sequence[int], curve: list[np.ndarray], work: Work, step: int
) -> list[int]:
    """Those of the lanes that learn no more, in a rung's second half."""
    stable = _stable(work.followed)
    if not (work.flat and curve and (work.begin + stable) / 2 <= step < stable):
        return []
    every = np.concatenate(curve, axis=1)
    return [lane for lane in going if is_flat(every[lane], work.flat)]


def _recovered(
    group: Group, work: Work, compiled: Compiled, device, params, ratio, on_steps
) -> Running:
    """The members pruned, after a short training of what is left of them.

    Removed channels are zeros, and zeros stay: the program is the same.
    """
    starts, settings = work.recovery, work.task.settings
    assert starts is not None
    begun = [
        fresh_state(pruned_in_place(config, weights, ratio), settings)
        for config, weights in zip(group.configs, params, strict=True)
    ]
    schedule = Schedule.over(len(starts), settings)
    running = Running(group, work.task, schedule, device, "recovery", begun)
    size = settings.steps_per_call
    for begin in range(0, len(starts), size):
        losses = running.advance(compiled.train, starts[begin : begin + size])
        on_steps(0, float(losses[0, -1]))
    running.drop_moments()
    return running


def _add(found: list[dict], more: list[dict]) -> None:
    for lane, metrics in enumerate(more):
        found[lane].update(metrics)
