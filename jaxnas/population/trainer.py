"""From configs to what their trainings left: planned, compiled, executed."""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from arch import ArchitectureConfig
from jaxnas.population.call import Outcome, Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import Machine, local_machine
from jaxnas.population.executor import execute
from jaxnas.population.observer import Observer
from jaxnas.population.pace import NO_BOUND, Allowance, Pace
from jaxnas.population.plan import Plan
from jaxnas.population.plan_log import Plans
from jaxnas.population.planner import Expected, Planner, planner_for
from jaxnas.population.pool import Split
from jaxnas.population.program import compressed_on_host
from jaxnas.population.ray_cluster import Cluster
from jaxnas.population.scheduling import makespan
from jaxnas.population.train_states import States
from jaxnas.runtime import give_back
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
    compile_weight: float = 1.0  # of compiling, see `Planner.plan`
    programs: float = math.inf  # that a search should make do with


NOTHING_AHEAD = Outlook()

# A plan's by key, in its order, of `training_config`; None is done already.
Candidates: TypeAlias = Mapping[str, ArchitectureConfig | None]

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
      settled: traits that all candidates that may come have alike.
      states: where trainings go on from, between phases; None keeps none.
      plans: what shared programs before, and will.
      machine: what it trains on.
      cluster: whose workers train in place of the machine's devices.
      observer: told of plans, and what goes otherwise than planned.
      pace: learns how predicted seconds are to be corrected.
    """

    task: Task
    rungs: Sequence[Rung]
    eval_windows: int
    recovery_share: float = 0.0
    flat: float = 0.0
    compressions: Sequence[Compression] = ()
    settled: Collection[str] = ()
    states: States | None = None
    plans: Plans = dataclasses.field(default_factory=Plans)
    machine: Machine = dataclasses.field(default_factory=local_machine)
    cluster: Cluster | None = None
    observer: Observer = dataclasses.field(default_factory=Observer)
    compilers: Compilers = dataclasses.field(default_factory=dict)
    pace: Pace = dataclasses.field(default_factory=Pace)

    @property
    def phases(self) -> list[Phase]:
        """The run's phases, from its own seed."""
        return [Phase(number, rung.name) for number, rung in enumerate(self.rungs)]

    def below(self, phase: Phase) -> Phase:
        """The phase before one that is not the first, from the same seed."""
        return self.phases[phase.rung - 1]._replace(repeat=phase.repeat)

    def key(self, config: ArchitectureConfig, phase: Phase = FIRST) -> str:
        """What a config's training in a phase is known by."""
        return training_key(config, phase.stage)

    def scored_ahead(self, phase: Phase = FIRST) -> Sequence[Compression]:
        """The compressions scored after every training; later, what is asked for."""
        several = len(self.compressions) > 1
        return () if phase.rung and several else self.compressions

    def run(
        self,
        configs: Mapping[str, ArchitectureConfig],
        wanted: Mapping[str, Sequence[Compression]],
        take: Callable[[Outcome], bool],
        report: Report = lambda *_: None,
        outlook: Outlook = NOTHING_AHEAD,
        phase: Phase = FIRST,
        generation: int | None = None,
        allowance: Allowance = NO_BOUND,
    ) -> None:
        """Trains the configs, in the plan that was made for them before.

        Args:
          configs: by `key`.
          wanted: by `key`, how weights are to be compressed and scored.
          take: called with each outcome as it comes; returns whether to go on.
          report: told of the steps of all of them.
          outlook: what may come after them.
          phase: see `Phase`.
          generation: recorded with a new plan.
          allowance: what may begin; the rest leaves no outcome.
        """
        if not configs:
            return
        keys = list(configs)
        found = self.plans.find(keys)
        if found is None:
            planned, plan = keys, self._plan(list(configs.values()), outlook, phase)
            about = {} if generation is None else {"generation": generation}
            self.plans.add(keys, plan, **about, **phase.recorded())
            self.observer.planned(plan)
        else:
            planned, plan = found
        # A plan that goes on may hold more than is asked for now.
        candidates = {
            key: training_config(configs[key]) if key in configs else None
            for key in planned
        }
        states, waiting = self._states(phase), set(configs)

        def kept(outcome: Outcome) -> bool:
            if states is not None and outcome.state is not None:
                states.save(outcome.key, outcome.state)
            waiting.discard(outcome.key)
            return take(outcome)

        expected, begin = seconds_at(self.pace, plan, self.machine), time.monotonic()
        execute(
            plan,
            candidates,
            self._work(candidates, wanted, report, phase),
            self._compiler({one for every in wanted.values() for one in every}, phase),
            kept,
            devices=self.machine.devices,
            workers=self.machine.workers,
            memory=self.machine.memory,
            report=report,
            on_split=self._split,
            pace=self.pace,
            allowance=allowance,
            cluster=self.cluster,
        )
        give_back()  # what compiling took
        if found is None and not waiting:  # all of it ran, as it was planned
            expected_plan = dataclasses.replace(plan, seconds=expected)
            self.observer.ran(expected_plan, time.monotonic() - begin)

    def predicted_seconds(
        self, configs: Sequence[ArchitectureConfig], phase: Phase = FIRST
    ) -> float:
        """Seconds that these would take, with what is compiled and learned so far."""
        chosen = {training_key(config): training_config(config) for config in configs}
        known = list(self.plans.homes())
        plan = self._planner(phase).plan(list(chosen.values()), known=known)
        return seconds_at(self.pace, plan, self.machine)

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

    def _split(self, split: Split) -> None:
        program, smaller, reason, _ = split
        self.plans.split(program, [smaller], reason)
        shape = program.shape
        self.observer.say(
            f"a bucket is split: {shape.arch_type} L{shape.num_layers} "
            f"H{shape.hidden_dim} in {program.lanes} lanes does not fit, {reason}; "
            f"now {smaller.form} in {smaller.lanes}"
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
            compile_weight=outlook.compile_weight,
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
        return planner_for(
            self.machine, settings, rung.new_steps, scoring, self.settled
        )

    def _compiler(self, wanted: set[Compression], phase: Phase) -> Compiler:
        """The programs; where all of a run ask for one compression, it is built in."""
        lone, ahead = None, self.scored_ahead(phase)
        on_host = compressed_on_host(self.machine.devices[0])
        if len(ahead) == 1 and wanted <= set(ahead) and not on_host:
            lone = ahead[0]
        if lone not in self.compilers:
            windows, cores = len(self.validation_windows()), self.machine.cores
            rates = self.machine.rates
            self.compilers[lone] = Compiler(
                self.task, windows, lone, cores, self.pace, rates
            )
        return self.compilers[lone]

    def _work(
        self,
        candidates: Candidates,
        wanted: Mapping[str, Sequence[Compression]],
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
    ) -> Callable[[str], TrainState]:
        """Where each candidate goes on from; what is missing is trained again."""
        assert self.states is not None
        below, states, settings = self.below(phase), self.states, self.task.settings
        open_ = {key: config for key, config in candidates.items() if config}
        before = {key: self.key(config, below) for key, config in open_.items()}
        missing = {
            before[key]: config
            for key, config in open_.items()
            if before[key] not in states
        }
        self.run(missing, {}, lambda outcome: True, report, phase=below)
        return lambda key: states.load(before[key], open_[key], settings)

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


def seconds_at(pace: Pace, plan: Plan, machine: Machine) -> float:
    """Seconds until a plan is done, corrected by what was learned."""
    compile_factor, factor = pace.factor("compile"), pace.factor("call")
    buckets = [
        dataclasses.replace(
            bucket,
            seconds=bucket.seconds * factor,
            compile_seconds=bucket.compile_seconds * compile_factor,
        )
        for bucket in plan.buckets
    ]
    return makespan(
        buckets,
        (),
        rates=machine.rates,
        speeds=(1.0,) * machine.number,
        cores=machine.cores,
        shares_cores=machine.shares_cores,
    )
