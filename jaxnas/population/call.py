"""One call of a program: its members train from a step to the end, and are scored."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from arch import ArchitectureConfig, Params
from jaxnas.compress import pruned_in_place
from jaxnas.population.lanes import Group, Running
from jaxnas.population.program import Compiled, Program
from jaxnas.training.curves import Curve, points_of
from jaxnas.training.loop import Schedule, TrainState, fresh_state
from jaxnas.training.scoring import Compression, Metrics
from jaxnas.training.single import TrainingFailed
from jaxnas.training.stopping import diverged, is_flat
from jaxnas.training.task import Task

# Candidates of a call's lanes, by their training's key; None is done already.
Keys: TypeAlias = tuple[str | None, ...]

OnSteps: TypeAlias = Callable[[int, float], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one candidate; trees are in its own shape, on the host."""

    key: str  # of its training
    program: Program  # it was trained in
    seconds: float = 0.0  # of its call
    loss: float = math.nan  # the last one of training
    params: Params | None = None  # None if it failed
    pruned: dict[float, Params] = dataclasses.field(default_factory=dict)  # recovered
    state: TrainState | None = None  # what goes on, if the work keeps one
    stopped: int | None = None  # the step at which its loss was flat, if it was
    curve: Curve = ()  # of the stable part
    metrics: dict[Compression, Metrics | None] = dataclasses.field(default_factory=dict)
    error: Exception | None = None
    trace: str = ""

    def weights_for(self, ratio: float) -> Params | None:
        """The weights that were scored with this pruning ratio."""
        return self.pruned.get(ratio, self.params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What all members of a plan do.

    Attributes:
      task: see `Task`.
      starts: i32[steps, B], from `batch_starts`.
      windows: i32[N, T+1], to score on.
      wanted: key -> compressions to score a candidate after; none by default.
      schedule: of the training; None is the settings', over all steps.
      begin: the first step to do.
      begun: key -> a candidate's state after `begin` steps; not called for 0.
      keep: the step after which states are handed out; None for no step.
      flat: share of its loss that a training has to win over half of its steps
        to go on; 0 lets all go on.
      recovery: i32[R, B], steps that pruned weights train on for; None for none.
    """

    task: Task
    starts: np.ndarray
    windows: np.ndarray
    wanted: Mapping[str, Sequence[Compression]]
    schedule: Schedule | None = None
    begin: int = 0
    begun: Callable[[str], TrainState] | None = None
    keep: int | None = None
    flat: float = 0.0
    recovery: np.ndarray | None = None

    @property
    def followed(self) -> Schedule:
        """The schedule that trainings follow."""
        if self.schedule is not None:
            return self.schedule
        return Schedule.over(len(self.starts), self.task.settings)


def train_call(
    program: Program,
    keys: Keys,
    candidates: Mapping[str, ArchitectureConfig | None],
    work: Work,
    compiled: Compiled,
    device: jax.Device,
    on_steps: OnSteps,
) -> list[Outcome]:
    """Trains and scores the members of a call.

    Args:
      program: to run.
      keys: of a candidate for each lane.
      candidates: by key.
      work: see `Work`.
      compiled: the program, for the device.
      device: where it runs.
      on_steps: told of steps done and a loss; what it raises ends the call.
    """
    # Those done leave a lane to a copy: the others keep theirs.
    [filler, *_] = [key for key in keys if key is not None]
    members = [filler if key is None else key for key in keys]
    configs = [one for key in members if (one := candidates[key]) is not None]
    group = Group(program=program, configs=configs)
    begun = None
    if work.begin and work.begun is not None:
        begun = [work.begun(key) for key in members]
    running = Running(group, work.task, work.followed, device, begun=begun)
    lanes = _Lanes(running, work)
    lanes.train(compiled, on_steps)
    wanted = [() if key is None else tuple(work.wanted.get(key, ())) for key in keys]
    scores = _Scores([None] * len(keys), [{} for _ in keys], [{} for _ in keys])
    if len(lanes.failed) < len(keys):
        every = list(dict.fromkeys(one for each in wanted for one in each))
        scores = _scored(running, every, work, compiled, device, on_steps)
    curves = lanes.curves()
    outcomes = []
    for lane, key in enumerate(keys):
        if key is None:
            continue
        outcome = Outcome(key=key, program=program)
        if lane in lanes.failed:
            error = lanes.failed[lane]
            outcome = dataclasses.replace(outcome, error=error, trace=f"{error}\n")
        else:
            outcome = dataclasses.replace(
                outcome,
                loss=float(lanes.losses[lane]),
                params=scores.params[lane],
                pruned=scores.pruned[lane],
                state=lanes.states[lane],
                stopped=lanes.stopped[lane],
                curve=curves[lane],
                metrics={one: scores.metrics[lane][one] for one in wanted[lane]},
            )
        outcomes.append(outcome)
    return outcomes


class _Lanes:
    """The members of a call while they train.

    A member is judged where it would be judged alone, whatever is beside it. One
    that has ended stays as it is, for its learning rate is zero.

    Attributes:
      losses: f32[lanes], the last ones.
      failed: lane -> why.
      states: [lanes], what goes on from the work's `keep`, or where it was flat.
      stopped: [lanes], the step at which a loss was flat.
    """

    def __init__(self, running: Running, work: Work) -> None:
        number = len(running.group.configs)
        self._running, self._work = running, work
        self._stable = _stable(work.followed)
        self._ends = [len(work.starts)] * number
        self._schedules = [work.followed] * number
        self._step = self._judged = work.begin
        self._curve: list[np.ndarray] = []  # while the learning rate is constant
        self._curve_begin = work.begin
        self._recent: list[np.ndarray] = []  # since all were judged
        self.losses = np.full(number, np.nan, np.float32)
        self.failed: dict[int, TrainingFailed] = {}
        self.states: list[TrainState | None] = [None] * number
        self.stopped: list[int | None] = [None] * number

    def train(self, compiled: Compiled, on_steps: OnSteps) -> None:
        """Trains each member to its end: the work's, or after it was found flat."""
        while alive := self._alive():
            regular = self._next_look()
            until = min(regular, *(self._ends[lane] for lane in alive))
            starts = self._work.starts[self._step : until]
            losses = self._running.advance(compiled.train, starts)
            on_steps(until - self._step, float(losses[alive[0], -1]))
            self._recent.append(losses)
            self._step = until
            since = np.concatenate(self._recent, axis=1)
            self._judge(alive, since, regular)
            if self._step == regular:
                self._look(alive, since)

    def curves(self) -> list[Curve]:
        """[lanes], of the stable part of each training."""
        every, begin = self._all_stable(), self._curve_begin
        return [
            points_of(losses[: None if end is None else end - begin], begin)
            for losses, end in zip(every, self.stopped, strict=True)
        ]

    def _alive(self) -> list[int]:
        return [
            lane
            for lane, end in enumerate(self._ends)
            if lane not in self.failed and self._step < end
        ]

    def _next_look(self) -> int:
        """Where all are judged next.

        At regular steps, where states are kept, where the decay begins, at the end.
        """
        work, step = self._work, self._step
        size = work.task.settings.steps_per_call
        regular = step + size - (step - work.begin) % size
        stops = (regular, work.keep, self._stable, len(work.starts))
        return min(stop for stop in stops if stop and stop > step)

    @property
    def _warm(self) -> bool:
        return bool(self._judged >= self._work.followed.warmup)

    def _judge(self, alive: Sequence[int], since: np.ndarray, regular: int) -> None:
        """Finds those that diverged since all were judged."""
        configs = self._running.group.configs
        for lane in alive:
            self.losses[lane] = since[lane, -1]
            if self._step in (regular, self._ends[lane]):
                vocabulary = configs[lane].vocab_size
                why = diverged(since[lane], self._judged, vocabulary, self._warm)
                if why is not None:
                    self.failed[lane] = TrainingFailed(why)

    def _look(self, alive: Sequence[int], since: np.ndarray) -> None:
        """Ends those whose loss is flat; hands out states where they are kept."""
        if self._warm and self._step <= self._stable:
            if not self._curve:
                self._curve_begin = self._judged
            self._curve.append(since)
        self._judged, self._recent = self._step, []
        going = [
            lane
            for lane in alive
            if lane not in self.failed and self.stopped[lane] is None
        ]
        flat = [lane for lane in going if self._is_flat(lane)]
        schedule = self._work.followed
        for lane in flat:
            self.stopped[lane] = self._step
            end = min(len(self._work.starts), self._step + math.ceil(schedule.decay))
            self._ends[lane] = end
            self._schedules[lane] = schedule._replace(total=float(end))
        if flat:
            self._running.follow(self._schedules)
        if kept := going if self._step == self._work.keep else flat:
            states = self._running.states()
            for lane in kept:
                self.states[lane] = states[lane]

    def _is_flat(self, lane: int) -> bool:
        """Whether a lane learns no more, in a rung's second half."""
        begin, share, stable = self._work.begin, self._work.flat, self._stable
        if not (share and self._curve and (begin + stable) / 2 <= self._step < stable):
            return False
        return is_flat(self._all_stable()[lane], share)

    def _all_stable(self) -> np.ndarray:
        """f32[lanes, steps], the losses of the stable part."""
        if not self._curve:
            return np.zeros((len(self._ends), 0))
        return np.concatenate(self._curve, axis=1)


def _stable(schedule: Schedule) -> int:
    """Steps before the decay."""
    return int(schedule.total - schedule.decay)


class _Scores(NamedTuple):
    """The weights of a call's lanes, and their scores."""

    params: Sequence[Params | None]
    pruned: list[dict[float, Params]]  # by ratio, after their recovery
    metrics: list[dict[Compression, Metrics | None]]


def _scored(
    running: Running,
    every: Sequence[Compression],
    work: Work,
    compiled: Compiled,
    device: jax.Device,
    on_steps: OnSteps,
) -> _Scores:
    """Scores the members after each compression, pruned ones after a recovery."""
    running.drop_moments()
    group, params, score = running.group, running.params(), compiled.score
    metrics: list[dict[Compression, Metrics | None]] = [{} for _ in params]
    pruned: list[dict[float, Params]] = [{} for _ in params]
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


def _recovered(
    group: Group,
    work: Work,
    compiled: Compiled,
    device: jax.Device,
    params: Sequence[Params],
    ratio: float,
    on_steps: OnSteps,
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
