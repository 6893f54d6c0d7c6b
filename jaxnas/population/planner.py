"""Which candidates share a program: the partition that costs the fewest seconds.

Each program costs its compilation, each member its steps, padding included.
Candidates that can share a shape stand in a row by their width, and the row is cut
where that is cheapest. A part has at most one new program that is shared; each of
it takes that one, one that exists, or its own.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from arch import ArchitectureConfig
from arch.model import UNROLLED_LAYERS
from arch.padding import common_shape, shape_key
from jaxnas.population.cost_model import Rates, work_of
from jaxnas.population.devices import Machine
from jaxnas.population.plan import Bucket, Plan
from jaxnas.population.program import EXACT_FORMS, Program
from jaxnas.population.scheduling import Compiling, makespan, place
from jaxnas.training.settings import TrainSettings

MOST_LANES = 32  # members under one `vmap`
MAX_COMPILE_WEIGHT = 10.0  # to make do with few programs
NEVER = 1e9  # seconds; what an expected kind costs that no program takes

Configs: TypeAlias = Sequence[ArchitectureConfig]
Chosen: TypeAlias = dict[Program, list[int]]  # members by index, lanes still open


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """A kind of candidate that may still come."""

    config: ArchitectureConfig  # the largest of its kind
    number: float  # how many of them


class Demand(NamedTuple):
    """A candidate, or a kind that is expected."""

    config: ArchitectureConfig
    number: float  # how many like it are trained, now and later
    known: list[Program]  # the best of those that take it, if any does
    at: int | None  # place among the candidates; None for a kind


class Part(NamedTuple):
    """Of a row: its programs, and whom each of them serves."""

    seconds: float
    served: dict[Program, list[Demand]]


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
      settled: traits that all models which may be asked for have alike.
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
    settled: Collection[str] = ()

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
        known = dict.fromkeys(known)
        rows = self._rows(candidates, known, horizon, expected)
        share = 1.0
        if not self.shares_cores and compile_weight <= MAX_COMPILE_WEIGHT:
            # Cores that do not train compile side by side, while devices train.
            share = len(self.speeds) * self.rates.workers / self.cores
        while True:
            compiling = Compiling(self.rates, known, homes, compile_weight * share)
            parts = [part for row in rows for part in self._cut(row, compiling)]
            served = [pair for part in parts for pair in part.served.items()]
            new = {program for program, _ in served}.difference(known)
            if len(new) <= most or compile_weight >= MAX_COMPILE_WEIGHT:
                break
            compile_weight *= 1.5
        chosen: Chosen = {}
        prepared = []
        for program, demands in served:
            members = [one.at for one in demands if one.at is not None]
            if members:
                one_lane = dataclasses.replace(program, lanes=1)
                chosen.setdefault(one_lane, []).extend(members)
            elif prepares and program in new:
                prepared.append(program)
        return self._planned(chosen, candidates, compiling, prepared)

    def _rows(
        self,
        candidates: Configs,
        known: Iterable[Program],
        horizon: float,
        expected: Sequence[Expected],
    ) -> list[list[Demand]]:
        """The demands of each shape key."""
        usable = [program for program in known if not self._too_large(program)]
        every: list[tuple[ArchitectureConfig, float, int | None]]
        every = [(one, 1.0 + horizon, at) for at, one in enumerate(candidates)]
        every += [(kind.config, kind.number, None) for kind in expected]
        rows: dict[tuple, list[Demand]] = {}
        for config, number, at in every:
            key = shape_key(config)
            takes = [program for program in usable if program.takes(config)]
            takes.sort(
                key=lambda one: self.member_seconds(one, config, len(candidates))
            )
            rows.setdefault(key, []).append(Demand(config, number, takes[:1], at))
        return list(rows.values())

    def _cut(self, row: list[Demand], compiling: Compiling) -> list[Part]:
        """The cheapest cut of a row; candidates of one width stay together.

        By dynamic programming: the last part begins at some width, and what is
        before it is cut as well as can be.
        """
        widths = sorted({one.config.hidden_dim for one in row})
        best: list[list[Part]] = [[]]  # of the first widths, by their number
        for high in widths:
            cuts = []
            for before, low in zip(best, widths, strict=False):
                inside = [one for one in row if low <= one.config.hidden_dim <= high]
                cuts.append([*before, self._part(inside, compiling)])
            best.append(min(cuts, key=lambda cut: sum(part.seconds for part in cut)))
        return best[-1]

    def _part(self, demands: list[Demand], compiling: Compiling) -> Part:
        """The cheapest, with one new program that is shared or without."""
        now = sum(one.at is not None for one in demands)
        # What fewer than one more of each is to come for serves these alone.
        last = all(one.number < 2 for one in demands if one.at is not None)
        configs = [one.config for one in demands]
        shape = common_shape(configs, last and now > 0, self.settled)
        new = self._elastic(shape, now or len(demands))
        shared: list[list[Program]] = [[]]
        shared += [[program] for program in new if not self._too_large(program)]
        ways = [
            self._served(demands, programs, alone, compiling)
            for programs, alone in itertools.product(shared, (False, True))
        ]
        return min(ways, key=lambda way: way.seconds)

    def _served(
        self,
        demands: list[Demand],
        shared: list[Program],
        alone: bool,
        compiling: Compiling,
    ) -> Part:
        """Each in what exists or is shared; alone if need be, or if that is cheaper."""
        served: dict[Program, list[Demand]] = {}
        seconds = 0.0
        for one in demands:
            # Chosen as if calls were full; what they cost is counted as they are.
            options = [*one.known, *shared]
            costs = [self.member_seconds(option, one.config) for option in options]
            if one.at is not None and (alone or not options):
                for form in EXACT_FORMS:
                    own = Program(shape=one.config, form=form)
                    options.append(own)
                    costs.append(self._seconds(own, [one], compiling) / one.number)
            if options:
                best = options[costs.index(min(costs))]
                served.setdefault(best, []).append(one)
            else:
                seconds += NEVER
        seconds += sum(self._seconds(*pair, compiling) for pair in served.items())
        return Part(seconds, served)

    def _seconds(
        self, program: Program, demands: list[Demand], compiling: Compiling
    ) -> float:
        """Of compiling the program and of training all of these in it."""
        compiled = compiling.compile_weight * compiling.seconds(program)
        if not program.elastic:  # each of its like has its own
            compiled *= sum(one.number for one in demands)
        # What is to come fills its calls as the candidates at hand do.
        members = max(1, sum(one.at is not None for one in demands))
        return compiled + sum(
            one.number * self.member_seconds(program, one.config, members)
            for one in demands
        )

    def fixed(self, candidates: Sequence[ArchitectureConfig], exact: bool) -> Plan:
        """Without a choice: a program for each, or one for each shape key."""
        chosen: Chosen = {}
        for at, config in enumerate(candidates):
            alike = [one for one in candidates if shape_key(one) == shape_key(config)]
            if exact:
                program = Program(shape=config)
            else:
                shape = common_shape(alike, settled=self.settled)
                program = self._elastic(shape, len(alike))[0]
            chosen.setdefault(program, []).append(at)
        compiling = Compiling(self.rates, (), None, compile_weight=1.0)
        return self._planned(chosen, candidates, compiling)

    def member_seconds(
        self, program: Program, config: ArchitectureConfig, members: int = 0
    ) -> float:
        """A member's share of the calls of so many; by default of a full call."""
        members = members or program.lanes
        calls = -(-members // program.lanes)
        a_step = self.rates.step_seconds(program, config, self.settings)
        trained = a_step * calls / members * (self.steps + self.scoring)
        work = work_of(program, config, self.settings)
        return trained + self.rates.handling * work.parameters

    def _elastic(self, shape: ArchitectureConfig, members: int) -> list[Program]:
        """New programs, with as many lanes as the memory holds, by the prediction."""
        lanes = _lanes_for(members) if self.vmapped else 1
        found = []
        for form in ("looped", "unrolled"):
            program = Program(shape=shape, form=form, lanes=lanes, vmapped=self.vmapped)
            while program.lanes > 1 and self._too_large(program):
                program = dataclasses.replace(program, lanes=program.lanes // 2)
            if form == "looped" or shape.num_layers <= UNROLLED_LAYERS:
                found.append(program)
        return found

    def _too_large(self, program: Program) -> bool:
        return self.rates.memory_bytes(program, self.settings) > self.memory

    def _best_lanes(
        self, program: Program, members: int, compiling: Compiling
    ) -> Program:
        most = _lanes_for(members) if program.vmapped else 1
        options = []
        for lanes in [1 << n for n in range(MOST_LANES.bit_length())]:
            option = dataclasses.replace(program, lanes=lanes)
            fits = lanes == 1 or not self._too_large(option)
            if fits and (lanes <= most or option in compiling.known):
                options.append(option)
        costs = [
            members * self.member_seconds(option, option.shape, members)
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

    def _bucket(
        self,
        program: Program,
        members: Sequence[int],
        candidates: Configs,
        compiling: Compiling,
    ) -> Bucket:
        program = self._best_lanes(program, len(members), compiling)
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
            halves = [
                self._bucket(longest.program, half, candidates, compiling)
                for half in (longest.members[::2], longest.members[1::2])
            ]
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
        buckets = [
            self._bucket(program, members, candidates, compiling)
            for program, members in chosen.items()
        ]
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
    machine: Machine,
    settings: TrainSettings,
    steps: int,
    scoring: float,
    settled: Collection[str] = (),
) -> Planner:
    """The planner of a machine, for trainings of this many steps; see `Planner`."""
    return Planner(
        rates=machine.rates,
        settings=settings,
        steps=steps,
        scoring=scoring,
        vmapped=machine.vmapped,
        memory=machine.memory,
        speeds=(1.0,) * machine.number,
        cores=machine.cores,
        shares_cores=machine.shares_cores,
        settled=settled,
    )


def _lanes_for(members: int) -> int:
    return min(MOST_LANES, 1 << (members - 1).bit_length())
