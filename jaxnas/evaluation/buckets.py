"""Who shares a program: a partition of candidates that costs the fewest seconds.

Each program costs its compilation, each member its steps, padding included. To
choose the programs is a facility location problem: candidates for a program are
those that exist already, which cost nothing, the common shapes of members of
neighbouring widths, and each member's own shape. Programs are added while that
saves seconds, and dropped when others have made them needless.
"""

import dataclasses
import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Any

from arch import ArchitectureConfig
from arch.model import UNROLLED_LAYERS
from arch.padding import common_shape, shape_key
from jaxnas.evaluation.machine import Machine
from jaxnas.evaluation.programs import Program
from jaxnas.evaluation.rates import Rates, work_of
from jaxnas.train.settings import TrainSettings

MOST_LANES = 32  # members under one `vmap`
DEAREST = 10.0  # price of compiling, to make do with few programs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucket:
    """Members that share a program, on one device."""

    program: Program
    members: tuple[int, ...]  # places among the plan's candidates
    device: int = 0  # place among the local devices
    seconds: float  # predicted, of training and scoring; the compilation apart
    compile_seconds: float  # predicted; 0 for a program that exists
    waste: float  # share of its work that is padding, in [0, 1)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The members of each call."""
        size = self.program.lanes
        return [
            self.members[at : at + size] for at in range(0, len(self.members), size)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Bucket":
        """The inverse of `to_dict`."""
        program = Program.from_dict(values["program"])
        members = tuple(values["members"])
        return cls(**values | {"program": program, "members": members})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How some candidates are trained."""

    buckets: tuple[Bucket, ...]  # in the order in which they begin
    prepared: tuple[Program, ...] = ()  # compiled for those that will come
    seconds: float  # predicted, until all is done

    def programs(self) -> list[Program]:
        """Those that exist once the plan has run."""
        used = [bucket.program for bucket in self.buckets]
        return list(dict.fromkeys([*used, *self.prepared]))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "buckets": [bucket.to_dict() for bucket in self.buckets],
            "prepared": [program.to_dict() for program in self.prepared],
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Plan":
        """The inverse of `to_dict`."""
        return cls(
            buckets=tuple(map(Bucket.from_dict, values["buckets"])),
            prepared=tuple(map(Program.from_dict, values["prepared"])),
            seconds=values["seconds"],
        )


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
        price: float = 1.0,
        most: float = math.inf,
    ) -> Plan:
        """Partitions the candidates.

        Args:
          candidates: distinct, of `training_config`.
          known: programs that exist.
          horizon: how many like each candidate are still to come.
          expected: kinds that are to come; programs are chosen for them too.
          prepares: whether programs for those kinds alone are compiled now.
          price: by what the cost of compiling is multiplied.
          most: new programs, those to come included; the price rises up to
            `DEAREST` until that is kept.
        """
        known = list(dict.fromkeys(known))
        while True:
            chosen, to_come = self._choose(candidates, known, horizon, expected, price)
            new = {*chosen, *to_come}.difference(known)
            if len(new) <= most or price >= DEAREST:
                break
            price *= 1.5
        prepared = to_come if prepares else []
        buckets = [
            self._bucket(program, members, candidates, known)
            for program, members in chosen.items()
        ]
        buckets = self._on_devices(buckets, candidates)
        return Plan(
            buckets=tuple(buckets),
            prepared=tuple(prepared),
            seconds=self._makespan(buckets, prepared),
        )

    def _choose(self, candidates, known, horizon, expected, price):
        """Each program's members, and new programs for expected kinds alone."""
        chosen: dict[Program, list[int]] = {}
        to_come: list[Program] = []
        keys = [shape_key(config) for config in candidates]
        future = [shape_key(kind.config) for kind in expected]
        for key in dict.fromkeys([*keys, *future]):
            members = [at for at, own in enumerate(keys) if own == key]
            demand = [(candidates[at], 1.0 + horizon) for at in members]
            later = [
                kind for kind, own in zip(expected, future, strict=True) if own == key
            ]
            demand += [(kind.config, kind.number) for kind in later]
            options = self._options([config for config, _ in demand], known)
            opened, places = self._locate(demand, options, known, horizon, price)
            for at, place in zip(members, places, strict=False):
                chosen.setdefault(opened[place], []).append(at)
            used = set(places[: len(members)])
            to_come += [
                opened[place]
                for place in dict.fromkeys(places[len(members) :])
                if place not in used and opened[place] not in known
            ]
        return chosen, to_come

    def fixed(self, candidates: Sequence[ArchitectureConfig], exact: bool) -> Plan:
        """Without a choice: a program for each, or one for each shape key."""
        chosen: dict[Program, list[int]] = {}
        for at, config in enumerate(candidates):
            alike = [one for one in candidates if shape_key(one) == shape_key(config)]
            if exact:
                program = Program(shape=config)
            else:
                program = self._elastic(common_shape(alike), len(alike))[0]
            chosen.setdefault(program, []).append(at)
        buckets = [
            self._bucket(program, members, candidates, ())
            for program, members in chosen.items()
        ]
        buckets = self._on_devices(buckets, candidates)
        return Plan(buckets=tuple(buckets), seconds=self._makespan(buckets, ()))

    def member_seconds(self, program: Program, config: ArchitectureConfig) -> float:
        """A member's share of its call: training and scoring."""
        a_step = self.rates.step_seconds(program, config, self.settings)
        trained = a_step / program.lanes * (self.steps + self.scoring)
        return trained + self.rates.handling_seconds(program)

    def _options(self, configs, known) -> list[Program]:
        """Programs that could serve some of the configs of one shape key."""
        configs = list(dict.fromkeys(configs))
        options = [program for program in known if any(map(program.takes, configs))]
        options += [Program(shape=config, form="exact") for config in configs]
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
            lanes = min(MOST_LANES, 1 << (members - 1).bit_length())
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

    def _locate(self, demand, options, known, horizon, price):
        """Opens some options, and gives each of the demand its place among them."""
        never = float("inf")
        cost = [
            [
                number * self.member_seconds(program, config)
                if program.takes(config)
                and not (self._too_large(program) and program.shape != config)
                else never
                for config, number in demand
            ]
            for program in options
        ]
        # What is compiled for one model alone is compiled for each of its like.
        opening = [
            0.0
            if program in known
            else price
            * self.rates.compile_seconds(program)
            * (1.0 if program.elastic else 1.0 + horizon)
            for program in options
        ]
        opened = [at for at, program in enumerate(options) if program in known]
        best = [
            min((cost[at][m] for at in opened), default=never)
            for m in range(len(demand))
        ]
        while True:
            gains = [
                _gain(best, cost[at]) - opening[at] if at not in opened else -never
                for at in range(len(options))
            ]
            at = max(range(len(options)), key=gains.__getitem__)
            if gains[at] <= 0:
                break
            opened.append(at)
            opened = _without_needless(opened, cost, opening)
            best = [min(cost[at][m] for at in opened) for m in range(len(demand))]
        places = [min(opened, key=lambda at: cost[at][m]) for m in range(len(demand))]
        return options, places

    def _bucket(self, program, members, candidates, known) -> Bucket:
        # The longest first, so that none is left over at the end.
        cost = {at: self.member_seconds(program, candidates[at]) for at in members}
        members = sorted(members, key=lambda at: (-cost[at], at))
        own = padded = 0.0
        for at in members:
            alone = Program(shape=candidates[at])
            own += work_of(alone, candidates[at], self.settings).flops
            padded += work_of(program, candidates[at], self.settings).flops
        calls = -(-len(members) // program.lanes)
        return Bucket(
            program=program,
            members=tuple(members),
            seconds=sum(cost.values()) / len(members) * program.lanes * calls,
            compile_seconds=(
                0.0 if program in known else self.rates.compile_seconds(program)
            ),
            waste=max(0.0, 1 - own / padded),
        )

    def _on_devices(self, buckets: list[Bucket], candidates) -> list[Bucket]:
        """Splits what is too long for one device; the longest begin first."""
        number = len(self.speeds)
        while number > 1:
            share = sum(bucket.seconds for bucket in buckets) / number
            longest = max(buckets, key=lambda bucket: bucket.seconds)
            splits = len(longest.members) > 1 and (
                len(buckets) < number
                or longest.seconds > 1.5 * max(share, longest.compile_seconds)
            )
            if not splits:
                break
            buckets.remove(longest)
            for half in (longest.members[::2], longest.members[1::2]):
                part = self._bucket(longest.program, list(half), candidates, ())
                buckets.append(
                    dataclasses.replace(part, compile_seconds=longest.compile_seconds)
                )
        buckets.sort(key=lambda bucket: -bucket.seconds - bucket.compile_seconds)
        free = [(0.0, at) for at in range(number)]
        placed = []
        for bucket in buckets:
            # The device that would be done with it first.
            total = bucket.seconds + bucket.compile_seconds
            at = min(free, key=lambda one: (one[0] + total / self.speeds[one[1]], one))
            free.remove(at)
            free.append((at[0] + total / self.speeds[at[1]], at[1]))
            placed.append(dataclasses.replace(bucket, device=at[1]))
        return placed

    def _makespan(
        self, buckets: Sequence[Bucket], prepared: Sequence[Program]
    ) -> float:
        """Seconds until all is done: compilations first, calls as they can begin.

        On a CPU both take the same cores.
        """
        cores = [0.0] * self.cores
        devices = [[0.0] * self.rates.workers for _ in self.speeds]
        jobs, end = [], 0.0
        for bucket in buckets:
            ready = 0.0
            if bucket.compile_seconds:
                ready = _serve(cores, 0.0, bucket.compile_seconds)
            calls = len(bucket.groups)
            jobs += [(ready, bucket.device, bucket.seconds / calls)] * calls
        for ready, device, seconds in sorted(jobs, key=lambda job: job[0]):
            slots = cores if self.shares_cores else devices[device]
            end = max(end, _serve(slots, ready, seconds / self.speeds[device]))
        for program in prepared:
            end = max(end, _serve(cores, 0.0, self.rates.compile_seconds(program)))
        return max([end, *cores]) if self.shares_cores else end


def planner_for(
    machine: Machine, settings: TrainSettings, steps: int, scoring: float
) -> Planner:
    """The planner of a machine, for trainings of so many steps."""
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


def _gain(best: Sequence[float], cost: Sequence[float]) -> float:
    """What an option saves; whom nothing served yet comes before all savings."""
    gain = 0.0
    for before, now in zip(best, cost, strict=True):
        if now < before:
            gain += 1e12 - now if before == float("inf") else before - now
    return gain


def _without_needless(opened: list[int], cost, opening) -> list[int]:
    """Closes what costs more to open than it saves now."""
    for at in sorted(opened, key=lambda at: -opening[at]):
        others = [other for other in opened if other != at]
        if not others or opening[at] == 0:
            continue
        lost = 0.0
        for m in range(len(cost[at])):
            lost += (
                min(cost[other][m] for other in others)
                - min(cost[other][m] for other in opened)
                if cost[at][m] < float("inf")
                else 0.0
            )
        if lost < opening[at]:
            opened = others
    return opened


def _serve(slots: list[float], ready: float, seconds: float) -> float:
    """Takes the slot that is free first; returns when the work is done."""
    end = max(heapq.heappop(slots), ready) + seconds
    heapq.heappush(slots, end)
    return end
