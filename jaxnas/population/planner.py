"""Which candidates share a program: the partition that costs the fewest seconds.

Each program costs its compilation, each member its steps, padding included. To
choose the programs is a facility location problem: candidates for a program are
those that exist already, which cost nothing, the common shapes of members of
neighbouring widths, and each member's own shape.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from arch import ArchitectureConfig
from arch.model import UNROLLED_LAYERS
from arch.padding import common_shape, shape_key
from jaxnas.population.cost_model import Rates, work_of
from jaxnas.population.devices import Machine
from jaxnas.population.facility_location import NEVER, locate
from jaxnas.population.plan import Bucket, Plan
from jaxnas.population.program import Program
from jaxnas.population.scheduling import Compiling, makespan, place
from jaxnas.training.settings import TrainSettings

MOST_LANES = 32  # members under one `vmap`
MAX_COMPILE_WEIGHT = 10.0  # to make do with few programs


Configs: TypeAlias = Sequence[ArchitectureConfig]
Demand: TypeAlias = list[tuple[ArchitectureConfig, float]]  # how many of each kind
Chosen: TypeAlias = dict[Program, list[int]]  # each program's members, by index


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """A kind of candidate that may still come."""

    config: ArchitectureConfig  # the largest of its kind
    number: float  # how many of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans for one task on the local devices.

    Attributes:
      rates: of the device.
      settings: of the training.
      steps: of each training.
      scoring: what scoring a member costs, in training steps.
      vmapped: whether members run at once.
      memory: bytes of a device that may be used.
      speeds: of each local device, relative to the one of the rates.
      cores: that compile.
      shares_cores: whether training takes the same cores.
    """

    rates: Rates
    settings: TrainSettings
    steps: int
    scoring: float = 0.0
    vmapped: bool = False
    memory: float = float("inf")
    speeds: tuple[float, ...] = (1.0,)
    cores: int = 1
    shares_cores: bool = True

    def plan(
        self,
        candidates: Sequence[ArchitectureConfig],
        known: Iterable[Program] = (),
        horizon: float = 0.0,
        expected: Sequence[Expected] = (),
        prepares: bool = False,
        compile_weight: float = 1.0,
        most: float = math.inf,
        homes: Mapping[Program, Collection[int]] | None = None,
    ) -> Plan:
        """Partitions the candidates.

        Args:
          candidates: distinct, of `training_config`.
          known: programs that exist.
          horizon: how many like each candidate are still to come.
          expected: kinds that are to come; programs are chosen for them too.
          prepares: whether programs for those kinds alone are compiled now.
          compile_weight: by what the cost of compiling is multiplied.
          most: new programs, those to come included; the compile_weight rises up to
            `MAX_COMPILE_WEIGHT` until that is kept.
          homes: on which devices the known programs are; None for all.
        """
        known = list(dict.fromkeys(known))
        while True:
            chosen, to_come = self._choose(
                candidates, known, horizon, expected, compile_weight
            )
            new = {*chosen, *to_come}.difference(known)
            if len(new) <= most or compile_weight >= MAX_COMPILE_WEIGHT:
                break
            compile_weight *= 1.5
        prepared = to_come if prepares else []
        compiling = Compiling(self.rates, known, homes, compile_weight)
        return self._planned(chosen, candidates, compiling, prepared)

    def _choose(
        self,
        candidates: Configs,
        known: list[Program],
        horizon: float,
        expected: Sequence[Expected],
        compile_weight: float,
    ) -> tuple[Chosen, list[Program]]:
        """Each program's members, and new programs for expected kinds alone."""
        chosen: Chosen = {}
        to_come: list[Program] = []
        keys = [shape_key(config) for config in candidates]
        future = [shape_key(kind.config) for kind in expected]
        for key in dict.fromkeys([*keys, *future]):
            members = [at for at, own in enumerate(keys) if own == key]
            demand = [(candidates[at], 1.0 + horizon) for at in members]
            later = [
                kind
                for kind, own in zip(expected, future, strict=True)
                if own == key and not own[-1]  # a width that cannot be padded
            ]
            demand += [(kind.config, kind.number) for kind in later]
            if not demand:
                continue
            alone = [candidates[at] for at in members]
            options = self._options([config for config, _ in demand], known, alone)
            serving = self._locate(demand, options, known, horizon, compile_weight)
            now, then = serving[: len(members)], serving[len(members) :]
            for at, program in zip(members, now, strict=True):
                chosen.setdefault(program, []).append(at)
            to_come += [
                program
                for program in dict.fromkeys(then)
                if program not in now and program not in known
            ]
        return chosen, to_come

    def fixed(self, candidates: Sequence[ArchitectureConfig], exact: bool) -> Plan:
        """Without a choice: a program for each, or one for each shape key."""
        chosen: Chosen = {}
        for at, config in enumerate(candidates):
            alike = [one for one in candidates if shape_key(one) == shape_key(config)]
            if exact:
                program = Program(shape=config)
            else:
                program = self._elastic(common_shape(alike), len(alike))[0]
            chosen.setdefault(program, []).append(at)
        compiling = Compiling(self.rates, (), None, compile_weight=1.0)
        return self._planned(chosen, candidates, compiling)

    def member_seconds(
        self, program: Program, config: ArchitectureConfig, filled: int | None = None
    ) -> float:
        """A member's share of its call, training and scoring, with lanes filled."""
        a_step = self.rates.step_seconds(program, config, self.settings)
        share = a_step / (program.lanes if filled is None else filled)
        trained = share * (self.steps + self.scoring)
        return trained + self.rates.handling_seconds(program)

    def _options(
        self, configs: Configs, known: list[Program], alone: Configs
    ) -> list[Program]:
        """Programs that could serve some of the configs of one shape key.

        Those in `alone` may have a program of their own.
        """
        configs = list(dict.fromkeys(configs))
        options = [program for program in known if any(map(program.takes, configs))]
        options += [Program(shape=config, form="exact") for config in alone]
        if shape_key(configs[0])[-1]:  # a width that cannot be padded
            return list(dict.fromkeys(options))
        widths = sorted({config.hidden_dim for config in configs})
        for low in range(len(widths)):
            for high in range(low, len(widths)):
                inside = [
                    config
                    for config in configs
                    if widths[low] <= config.hidden_dim <= widths[high]
                ]
                options += self._elastic(common_shape(inside), len(inside))
        return list(dict.fromkeys(options))

    def _elastic(self, shape: ArchitectureConfig, members: int) -> list[Program]:
        lanes = 1
        if self.vmapped:
            lanes = _lanes_for(members)
        forms = ["looped"]
        if shape.num_layers <= UNROLLED_LAYERS:
            forms.append("unrolled")
        found = []
        for form in forms:
            program = Program(shape=shape, form=form, lanes=lanes, vmapped=self.vmapped)
            found.append(self._fitting(program))
        return found

    def _fitting(self, program: Program) -> Program:
        """With as many lanes as the memory holds, by the prediction."""
        while program.lanes > 1 and self._too_large(program):
            program = dataclasses.replace(program, lanes=program.lanes // 2)
        return program

    def _too_large(self, program: Program) -> bool:
        return self.rates.memory_bytes(program, self.settings) > self.memory

    def _locate(
        self,
        demand: Demand,
        options: list[Program],
        known: list[Program],
        horizon: float,
        compile_weight: float,
    ) -> list[Program]:
        """For each of the demand the program that serves it."""
        cost = [self._costs(program, demand) for program in options]
        # What is compiled for one model alone is compiled for each of its like.
        opening = [
            0.0
            if program in known
            else compile_weight
            * self.rates.compile_seconds(program)
            * (1.0 if program.elastic else 1.0 + horizon)
            for program in options
        ]
        opened, places = locate(
            np.asarray(cost, np.float64),
            np.asarray(opening),
            free=np.asarray([program in known for program in options]),
            start=np.asarray([not program.elastic for program in options]),
        )
        return [options[opened[at]] for at in places]

    def _costs(self, program: Program, demand: Demand) -> list[float]:
        """Seconds of each of the demand in the program."""
        large = self._too_large(program)
        taken = [
            program.takes(config) and not (large and program.shape != config)
            for config, _ in demand
        ]
        filled = max(1, min(program.lanes, sum(taken)))
        return [
            number * self.member_seconds(program, config, filled) if takes else NEVER
            for (config, number), takes in zip(demand, taken, strict=True)
        ]

    def _with_lanes(
        self, chosen: Chosen, compiling: Compiling
    ) -> list[tuple[Program, list[int]]]:
        """The members of each shape, in as many lanes as cost the fewest seconds."""
        merged: Chosen = {}
        for program, members in chosen.items():
            one_lane = dataclasses.replace(program, lanes=1)
            merged.setdefault(one_lane, []).extend(members)
        return [
            (self._best_lanes(program, len(members), compiling), members)
            for program, members in merged.items()
        ]

    def _best_lanes(
        self, program: Program, members: int, compiling: Compiling
    ) -> Program:
        options, most = [], _lanes_for(members) if program.vmapped else 1
        for lanes in [1 << n for n in range(MOST_LANES.bit_length())]:
            option = dataclasses.replace(program, lanes=lanes)
            fits = lanes == 1 or not self._too_large(option)
            if fits and (lanes <= most or option in compiling.known):
                options.append(option)
        costs = [
            self._calls_seconds(option, option.shape, members)
            + compiling.compile_weight * compiling.seconds(option)
            for option in options
        ]
        # Of the like, the most lanes: what launches cost is predicted the least well.
        like = [
            option
            for option, cost in zip(options, costs, strict=True)
            if cost <= 1.02 * min(costs)
        ]
        return like[-1]

    def _calls_seconds(
        self, program: Program, config: ArchitectureConfig, members: int
    ) -> float:
        """Seconds of all calls of this many members, each like the config."""
        calls = -(-members // program.lanes)
        return calls * program.lanes * self.member_seconds(program, config)

    def _bucket(
        self,
        program: Program,
        members: list[int],
        candidates: Configs,
        compiling: Compiling,
    ) -> Bucket:
        # The longest first, so that none is left over at the end.
        cost = {at: self.member_seconds(program, candidates[at]) for at in members}
        members = sorted(members, key=lambda at: (-cost[at], at))
        calls = -(-len(members) // program.lanes)
        own = padded = 0.0
        for at in members:
            alone = Program(shape=candidates[at])
            own += work_of(alone, candidates[at], self.settings).flops
            padded += work_of(program, candidates[at], self.settings).flops
        padded *= calls * program.lanes / len(members)  # lanes without a member
        return Bucket(
            program=program,
            members=tuple(members),
            seconds=sum(cost.values()) / len(members) * program.lanes * calls,
            compile_seconds=compiling.seconds(program),
            waste=max(0.0, 1 - own / padded),
        )

    def _on_devices(
        self, buckets: list[Bucket], candidates: Configs, compiling: Compiling
    ) -> list[Bucket]:
        """Splits what is too long for one device; the longest begin first."""
        number = len(self.speeds)
        whole: set[tuple] = set()  # what a split would not make shorter
        while number > 1:
            share = sum(bucket.seconds for bucket in buckets) / number
            several = [
                bucket
                for bucket in buckets
                if len(bucket.members) > 1 and bucket.members not in whole
            ]
            longest = max(several, key=lambda bucket: bucket.seconds, default=None)
            if longest is None or not (
                len(buckets) < number
                or longest.seconds > 1.5 * max(share, longest.compile_seconds)
            ):
                break
            halves = []
            for half in (longest.members[::2], longest.members[1::2]):
                program = self._best_lanes(longest.program, len(half), compiling)
                halves.append(self._bucket(program, list(half), candidates, compiling))
            if max(half.seconds for half in halves) >= longest.seconds:
                whole.add(longest.members)
                continue
            buckets.remove(longest)
            buckets += halves
        return place(buckets, self.speeds, compiling)

    def _planned(
        self,
        chosen: Chosen,
        candidates: Configs,
        compiling: Compiling,
        prepared: Sequence[Program] = (),
    ) -> Plan:
        """The plan of each program's members."""
        parts = self._with_lanes(chosen, compiling)
        buckets = [self._bucket(*part, candidates, compiling) for part in parts]
        placed = self._on_devices(buckets, candidates, compiling)
        seconds = makespan(
            placed,
            prepared,
            rates=self.rates,
            speeds=self.speeds,
            cores=self.cores,
            shares_cores=self.shares_cores,
        )
        return Plan(buckets=tuple(placed), prepared=tuple(prepared), seconds=seconds)


def planner_for(
    machine: Machine, settings: TrainSettings, steps: int, scoring: float
) -> Planner:
    """The planner of a machine, for trainings of this many steps."""
    return Planner(
        rates=machine.calibration.rates,
        settings=settings,
        steps=steps,
        scoring=scoring,
        vmapped=machine.calibration.vmapped,
        memory=machine.memory,
        speeds=machine.speeds,
        cores=machine.cores,
        shares_cores=machine.shares_cores,
    )


def _lanes_for(members: int) -> int:
    return min(MOST_LANES, 1 << (members - 1).bit_length())
