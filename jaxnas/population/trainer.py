"""From configs to what their trainings left: planned, compiled, executed."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from arch import ArchitectureConfig
from jaxnas.evaluation.training_log import training_key
from jaxnas.population.call import Outcome, Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import Machine, local_machine
from jaxnas.population.executor import execute
from jaxnas.population.plan import Plan
from jaxnas.population.plan_log import Plans
from jaxnas.population.planner import Expected, Planner, planner_for
from jaxnas.population.program import Program
from jaxnas.population.train_states import States
from jaxnas.training.loop import TrainState, batch_starts
from jaxnas.training.phases import Phase
from jaxnas.training.rungs import Rung, rung_starts
from jaxnas.training.scoring import Compression
from jaxnas.training.single import Report, training_config
from jaxnas.training.task import Task


class Outlook(NamedTuple):
    """What a search expects after the candidates at hand."""

    horizon: float = 0.0  # candidates like each of these
    expected: Sequence[Expected] = ()  # kinds to choose programs for
    prepares: bool = False  # whether to compile those programs now
    price: float = 1.0  # of compiling, see `Planner.plan`
    programs: float = math.inf  # that a search should make do with


NOTHING_AHEAD = Outlook()

# By the compression that is built in, None where it is data.
Compilers: TypeAlias = dict[Compression | None, Compiler]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """Trains configs on one task, in one of its phases.

    Attributes:
      rungs: the phases, each going on where the one before was stable.
      rung: which of them this one trains for, see `at`.
      repeat: 0, or which repetition from another seed.
      recovery_share: of a rung's steps, that pruned weights train on for.
      flat: share of its loss that a training has to win to go on, see `Work`.
      compressions: scored after every training, for those that may ask later.
      states: where trainings go on from, between phases; None keeps none.
      plans: what shared programs before, and will.
      machine: what it trains on.
      on_planned: called with each new plan before it runs.
      on_run: called with each plan that has run, and its seconds.
      say: told what goes otherwise than planned.
    """

    task: Task
    rungs: Sequence[Rung]
    eval_windows: int
    rung: int = 0
    repeat: int = 0
    recovery_share: float = 0.0
    flat: float = 0.0
    compressions: Sequence[Compression] = ()
    states: States | None = None
    plans: Plans = dataclasses.field(default_factory=Plans)
    machine: Machine = dataclasses.field(default_factory=local_machine)
    on_planned: Callable[[Plan], None] = lambda plan: None
    on_run: Callable[[Plan, float], None] = lambda plan, seconds: None
    say: Callable[[str], None] = lambda text: None
    compilers: Compilers = dataclasses.field(default_factory=dict)

    def at(self, rung: int, repeat: int = 0) -> "Trainer":
        """The same in another phase, or from another seed.

        It shares all that is known and compiled. A later phase needs a survivor's
        state; where that is not kept any more, the phases before are done again.

        Args:
          rung: place in `rungs`.
          repeat: from 1 on, another seed each, of which no state is kept.
        """
        scored_ahead = () if rung and len(self.compressions) > 1 else self.compressions
        return dataclasses.replace(
            self,
            rung=rung,
            repeat=repeat,
            compressions=scored_ahead,  # later, only what is asked for
            states=None if repeat else self.states,
        )

    @property
    def stage(self) -> str:
        """What sets its trainings apart from those of other phases and seeds."""
        phase = f"@{self.rungs[self.rung].name}" if self.rung else ""
        return phase + (f"#{self.repeat}" if self.repeat else "")

    def key(self, config: ArchitectureConfig) -> str:
        """What a config's training in this phase is known by."""
        return training_key(config, self.stage)

    def run(
        self,
        configs: Sequence[ArchitectureConfig],
        wanted: Mapping[str, Sequence[Compression]],
        report: Report = lambda *_: None,
        outlook: Outlook = NOTHING_AHEAD,
        **about: Any,
    ) -> Iterator[Outcome]:
        """Outcomes of the configs, in the plan that was made for them before.

        Args:
          configs: each of a training of its own.
          wanted: by `key`, how its weights are to be compressed and scored.
          report: told of the steps of all of them.
          outlook: what may come after them.
          **about: recorded with a new plan.
        """
        if not configs:
            return
        keys = [self.key(config) for config in configs]
        found = self.plans.find(keys)
        if found is None:
            planned, plan = keys, self._plan(configs, outlook)
            self.plans.add(keys, plan, **about)
            self.on_planned(plan)
        else:
            planned, plan = found
        # A plan that goes on may hold more than is asked for now.
        place_of = {key: place for place, key in enumerate(keys)}
        candidates = [
            training_config(configs[place_of[key]]) if key in place_of else None
            for key in planned
        ]
        begin = time.monotonic()
        work = self._work(
            candidates, lambda place: wanted.get(planned[place], ()), report
        )
        outcomes = execute(
            plan,
            candidates,
            work,
            self._compiler({one for every in wanted.values() for one in every}),
            devices=self.machine.devices,
            workers=self.machine.workers,
            memory=self.machine.memory,
            report=report,
            on_split=self._split,
        )
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                key = planned[outcome.place]
                if self.states is not None and outcome.state is not None:
                    self.states.save(key, outcome.state)
                yield dataclasses.replace(outcome, place=place_of[key])
        if found is None:  # all of it ran, as it was foreseen
            self.on_run(plan, time.monotonic() - begin)

    def foreseen(self, configs: Sequence[ArchitectureConfig]) -> float:
        """Seconds that these would take, with what is compiled so far."""
        chosen = {self.key(config): training_config(config) for config in configs}
        known = list(self.plans.homes())
        return self._planner.plan(list(chosen.values()), known=known).seconds

    def close(self):
        """Gives up what was to be compiled; nothing is evaluated afterwards."""
        for compiler in self.compilers.values():
            compiler.close()

    def programs(self) -> int:
        """Programs made ready so far, each for training and for scoring."""
        return sum(map(len, self.compilers.values()))

    def validation_windows(self) -> np.ndarray:
        """i32[<= eval_windows, T+1], the same for every candidate."""
        return self.task.windows("validation", self.eval_windows)

    def _split(self, program: Program, parts: list[Program], reason: str):
        self.plans.split(program, parts, reason)
        shape = program.shape
        self.say(
            f"a bucket is split: {shape.arch_type} L{shape.num_layers} "
            f"H{shape.hidden_dim} in {program.lanes} lanes does not fit, {reason}; "
            f"now {parts[0].form} in {parts[0].lanes}"
        )

    def _plan(self, configs, outlook: Outlook) -> Plan:
        homes = self.plans.homes()
        known = list(homes)
        return self._planner.plan(
            [training_config(config) for config in configs],
            known=known,
            horizon=outlook.horizon,
            expected=[
                Expected(config=training_config(kind.config), number=kind.number)
                for kind in outlook.expected
            ],
            prepares=outlook.prepares,
            price=outlook.price,
            most=outlook.programs - len(known),
            homes=None if self.machine.portable else homes,
        )

    @functools.cached_property
    def _planner(self) -> Planner:
        settings, rung = self.task.settings, self.rungs[self.rung]
        scored = max(1, len(self.compressions)) * self.eval_windows
        scoring = scored / (3 * settings.batch)  # forward, of three passes
        if self._recovery is not None:
            pruned = {one.pruning_ratio for one in self.compressions} - {0.0}
            scoring += len(pruned) * len(self._recovery)
        return planner_for(self.machine, settings, rung.new_steps, scoring)

    def _compiler(self, wanted: set[Compression]) -> Compiler:
        """The programs; where all of a run ask for one compression, it is built in."""
        lone = None
        if len(self.compressions) == 1 and wanted <= set(self.compressions):
            lone = self.compressions[0]
        if lone not in self.compilers:
            windows, cores = len(self.validation_windows()), self.machine.cores
            self.compilers[lone] = Compiler(self.task, windows, lone, cores)
        return self.compilers[lone]

    def _work(self, candidates, wanted, report) -> Work:
        """What all candidates of a plan do in this phase."""
        rung, settings = self.rungs[self.rung], self.task.settings
        task = self._own_task
        tokens = len(task.dataset.train)
        rungs = self.rungs[: self.rung + 1]
        begun = self._begun(candidates, report) if rung.begin else None
        return Work(
            task=task,
            starts=rung_starts(task.seed, tokens, settings, rungs),
            windows=self.validation_windows(),
            wanted=wanted,
            schedule=rung.schedule(settings),
            begin=rung.begin,
            begun=begun,
            keep=None if self.states is None else rung.keep,
            flat=self.flat,
            recovery=self._recovery,
        )

    def _begun(self, candidates, report) -> Callable[[int], TrainState]:
        """Where each candidate goes on from; what is missing is trained again."""
        assert self.states is not None
        below, states = self.at(self.rung - 1), self.states
        every = [config for config in candidates if config is not None]
        missing = [config for config in every if below.key(config) not in states]
        if missing:
            for _ in below.run(missing, {}, report):
                pass  # the states are saved as they come
        return lambda place: states.load(
            below.key(candidates[place]), candidates[place], self.task.settings
        )

    @functools.cached_property
    def _own_task(self) -> Task:
        """The task; from another seed for a repetition."""
        if not self.repeat:
            return self.task
        return dataclasses.replace(self.task, seed=self.task.seed + self.repeat)

    @functools.cached_property
    def _recovery(self) -> np.ndarray | None:
        """i32[R, B], where windows begin that pruned weights train on for."""
        settings = self.task.settings
        steps = round(self.recovery_share * self.rungs[self.rung].steps)
        if not steps:
            return None
        phase = Phase(samples=steps * settings.batch, epochs=1)
        task = self._own_task
        tokens = len(task.dataset.train)
        return batch_starts(task.seed, tokens, settings, phase, "recovery")
