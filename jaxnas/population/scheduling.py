"""Which device has which bucket, and how long all of them take."""

import dataclasses
import heapq
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from jaxnas.population.cost_model import Rates
from jaxnas.population.plan import Bucket
from jaxnas.population.program import Program


class Compiling(NamedTuple):
    """What compiling costs, by what exists where."""

    rates: Rates
    known: Collection[Program]
    homes: Mapping[Program, Collection[int]] | None
    compile_weight: float

    def seconds(self, program: Program, device: int | None = None) -> float:
        """For a device, or for the one where it costs least."""
        if program not in self.known:
            return self.rates.compile_seconds(program)
        if device is None or self.homes is None or device in self.homes[program]:
            return 0.0
        return self.rates.compile_seconds(program)


def place(
    buckets: Sequence[Bucket], speeds: Sequence[float], compiling: Compiling
) -> list[Bucket]:
    """Gives each bucket the device that is done with it first, the longest first.

    By LPT (Graham 1969, doi:10.1137/0117039), for devices of unlike speeds.
    """
    free = [0.0] * len(speeds)
    placed: list[Bucket] = []
    order = sorted(buckets, key=lambda one: -one.seconds - one.compile_seconds)
    for bucket in order:
        ends = [
            free[at]
            + bucket.seconds / speed
            + compiling.compile_weight * compiling.seconds(bucket.program, at)
            for at, speed in enumerate(speeds)
        ]
        at = min(range(len(speeds)), key=lambda at: (ends[at], at))
        compile_seconds = compiling.seconds(bucket.program, at)
        if any(b.program == bucket.program and b.device == at for b in placed):
            compile_seconds = 0.0  # counted already
        free[at] += bucket.seconds / speeds[at] + compile_seconds
        placed.append(
            dataclasses.replace(bucket, device=at, compile_seconds=compile_seconds)
        )
    return placed


def makespan(
    buckets: Sequence[Bucket],
    prepared: Sequence[Program],
    *,
    rates: Rates,
    speeds: Sequence[float],
    cores: int,
    shares_cores: bool,
) -> float:
    """Seconds until all is done: compilations first, calls as they can begin.

    Args:
      buckets: placed on their devices.
      prepared: compiled beside them.
      rates: of the first device.
      speeds: of each device, relative to it.
      cores: that compile.
      shares_cores: whether training takes the same cores.
    """
    compilers = [0.0] * cores
    devices = [[0.0] * rates.workers for _ in speeds]
    jobs, end = [], 0.0
    for bucket in buckets:
        ready = 0.0
        if bucket.compile_seconds:
            ready = _serve(compilers, 0.0, bucket.compile_seconds)
        calls = len(bucket.groups)
        jobs += [(ready, bucket.device, bucket.seconds / calls)] * calls
    for ready, device, seconds in sorted(jobs, key=lambda job: job[0]):
        slots = compilers if shares_cores else devices[device]
        end = max(end, _serve(slots, ready, seconds / speeds[device]))
    for program in prepared:
        end = max(end, _serve(compilers, 0.0, rates.compile_seconds(program)))
    return max([end, *compilers]) if shares_cores else end


def _serve(slots: list[float], ready: float, seconds: float) -> float:
    """Takes the slot that is free first; returns when the work is done."""
    end = max(heapq.heappop(slots), ready) + seconds
    heapq.heappush(slots, end)
    return end
