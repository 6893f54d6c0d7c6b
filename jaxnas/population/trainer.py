"""From configs to what their trainings left: planned, compiled, executed."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from arch import ArchitectureConfig
from jaxnas.population.call import Outcome, Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import Machine, local_machine
from jaxnas.population.executor import execute
from jaxnas.population.plan import Plan
from jaxnas.population.plan_log import Plans
from jaxnas.population.planner import Expected, Planner, planner_for
from jaxnas.population.program import Program
from jaxnas.population.train_states import States
from jaxnas.training.keys import training_key
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import TrainState, batch_starts
from jaxnas.training.phase import FIRST, Phase
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

# A plan's, of `training_config`; None is done already.
Candidates: TypeAlias = Sequence[ArchitectureConfig | None]

# By the compression that is built in, None where it is data.
Compilers: TypeAlias = dict[Compression | None, Compiler]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """Trains configs on one task, in any of its phases.

    A later phase needs a survivor's state; where that is not kept any more, the
    phases before are done again. From another seed no state is kept.

    Attributes:
      rungs: the phases, each going on where the one before was stable.
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

    @property
    def phases(self) -> list[Phase]:
        """The run's phases, from its own seed."""
        return [Phase(number, rung.name) for number, rung in enumerate(self.rungs)]

    def below(self, phase: Phase) -> Phase:
        """The phase before one that is not the first."""
        return self.phases[phase.rung - 1]

    def key(self, config: ArchitectureConfig, phase: Phase = FIRST) -> str:
        """What a config's training in a phase is known by."""
        return training_key(config, phase.stage)

    def scored_ahead(self, phase: Phase = FIRST) -> Sequence[Compression]:
        """The compressions scored after every training; later, what is asked for."""
        several = len(self.compressions) > 1
        return () if phase.rung and several else self.compressions

    def run(
        self,
        configs: Sequence[ArchitectureConfig],
        wanted: Mapping[str, Sequence[Compression]],
        report: Report = lambda *_: None,
        outlook: Outlook = NOTHING_AHEAD,
        phase: Phase = FIRST,
        generation: int | None = None,
    ) -> Iterator[Outcome]:
        """Outcomes of the configs, in the plan that was made for them before.

        Args:
          configs: each of a training of its own.
          wanted: by `key`, how its weights are to be compressed and scored.
          report: told of the steps of all of them.
          outlook: what may come after them.
          phase: see `Phase`.
          generation: recorded with a new plan.
        """
        if not configs:
            return
        keys = [self.key(config, phase) for config in configs]
        found = self.plans.find(keys)
        if found is None:
            planned, plan = keys, self._plan(configs, outlook, phase)
            about = {} if generation is None else {"generation": generation}
            self.plans.add(keys, plan, **about, **phase.recorded())
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
            candidates, lambda place: wanted.get(planned[place], ()), report, phase
        )
        states = self._states(phase)
        outcomes = execute(
            plan,
            candidates,
            work,
            self._compiler({one for every in wanted.values() for one in every}, phase),
            devices=self.machine.devices,
            workers=self.machine.workers,
            memory=self.machine.memory,
            report=report,
            on_split=self._split,
        )
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                key = planned[outcome.place]
                if states is not None and outcome.state is not None:
                    states.save(key, outcome.state)
                yield dataclasses.replace(outcome, place=place_of[key])
        if found is None:  # all of it ran, as it was foreseen
            self.on_run(plan, time.monotonic() - begin)

    def predicted_seconds(
        self, configs: Sequence[ArchitectureConfig], phase: Phase = FIRST
    ) -> float:
        """Seconds that these would take, with what is compiled so far."""
        chosen = {training_key(config): training_config(config) for config in configs}
        known = list(self.plans.homes())
        return self._planner(phase).plan(list(chosen.values()), known=known).seconds

    def close(self) -> None:
        """Gives up what was to be compiled; nothing is evaluated afterwards."""
        for compiler in self.compilers.values():
            compiler.close()

    def programs(self) -> int:
        """Programs made ready so far, each for training and for scoring."""
        return sum(map(len, self.compilers.values()))

    def validation_windows(self) -> np.ndarray:
        """i32[<= eval_windows, T+1], the same for every candidate."""
        return self.task.windows("validation", self.eval_windows)

    def _split(self, program: Program, parts: list[Program], reason: str) -> None:
        self.plans.split(program, parts, reason)
        shape = program.shape
        self.say(
            f"a bucket is split: {shape.arch_type} L{shape.num_layers} "
            f"H{shape.hidden_dim} in {program.lanes} lanes does not fit, {reason}; "
            f"now {parts[0].form} in {parts[0].lanes}"
        )

    def keep_states(self, configs: Iterable[ArchitectureConfig], phase: Phase) -> None:
        """Leaves, of the states up to a phase, the configs' in it and the one below.

        States of later phases stay: a run that is resumed comes by here again.
        """
        if self.states is None:
            return
        stages = [one.stage for one in self.phases[: phase.rung + 1]]
        kept = {training_key(one, at) for one in configs for at in stages[-2:]}
        self.states.keep(kept, stages)

    def _states(self, phase: Phase) -> States | None:
        return None if phase.repeat else self.states

    def _plan(
        self, configs: Sequence[ArchitectureConfig], outlook: Outlook, phase: Phase
    ) -> Plan:
        homes = self.plans.homes()
        known = list(homes)
        return self._planner(phase).plan(
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

    def _planner(self, phase: Phase) -> Planner:
        settings, rung = self.task.settings, self.rungs[phase.rung]
        ahead, recovery = self.scored_ahead(phase), self._recovery(phase)
        scored = max(1, len(ahead)) * self.eval_windows
        scoring = scored / (3 * settings.batch)  # forward, of three passes
        if recovery is not None:
            pruned = {one.pruning_ratio for one in ahead} - {0.0}
            scoring += len(pruned) * len(recovery)
        return planner_for(self.machine, settings, rung.new_steps, scoring)

    def _compiler(self, wanted: set[Compression], phase: Phase) -> Compiler:
        """The programs; where all of a run ask for one compression, it is built in."""
        lone, ahead = None, self.scored_ahead(phase)
        if len(ahead) == 1 and wanted <= set(ahead):
            lone = ahead[0]
        if lone not in self.compilers:
            windows, cores = len(self.validation_windows()), self.machine.cores
            self.compilers[lone] = Compiler(self.task, windows, lone, cores)
        return self.compilers[lone]

    def _work(
        self,
        candidates: Candidates,
        wanted: Callable[[int], Sequence[Compression]],
        report: Report,
        phase: Phase,
    ) -> Work:
        """What all candidates of a plan do in a phase."""
        rung, settings = self.rungs[phase.rung], self.task.settings
        task = self.task.repeated(phase.repeat)
        tokens = len(task.dataset.train)
        rungs = self.rungs[: phase.rung + 1]
        begun = self._begun(candidates, report, phase) if rung.begin else None
        return Work(
            task=task,
            starts=rung_starts(task.seed, tokens, settings, rungs),
            windows=self.validation_windows(),
            wanted=wanted,
            schedule=rung.schedule(settings),
            begin=rung.begin,
            begun=begun,
            keep=None if self._states(phase) is None else rung.keep,
            flat=self.flat,
            recovery=self._recovery(phase),
        )

    def _begun(
        self, candidates: Candidates, report: Report, phase: Phase
    ) -> Callable[[int], TrainState]:
        """Where each candidate goes on from; what is missing is trained again."""
        assert self.states is not None
        below, states, settings = self.below(phase), self.states, self.task.settings
        every = [config for config in candidates if config is not None]
        missing = [one for one in every if self.key(one, below) not in states]
        if missing:
            for _ in self.run(missing, {}, report, phase=below):
                pass  # the states are saved as they come

        def begun(place: int) -> TrainState:
            config = candidates[place]
            assert config is not None
            return states.load(self.key(config, below), config, settings)

        return begun

    def _recovery(self, phase: Phase) -> np.ndarray | None:
        """i32[R, B], where windows begin that pruned weights train on for."""
        settings = self.task.settings
        steps = round(self.recovery_share * self.rungs[phase.rung].steps)
        if not steps:
            return None
        length = PhaseLength(samples=steps * settings.batch, epochs=1)
        task = self.task.repeated(phase.repeat)
        tokens = len(task.dataset.train)
        return batch_starts(task.seed, tokens, settings, length, "recovery")
