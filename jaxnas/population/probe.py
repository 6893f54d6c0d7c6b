"""A small start: two programs compiled and run, so that the pace is known."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import Machine
from jaxnas.population.lanes import Group, Running
from jaxnas.population.pace import Pace
from jaxnas.population.plan import Bucket, Plan
from jaxnas.population.pool import check_memory, too_large
from jaxnas.population.program import Compiled, Program
from jaxnas.training.loop import Schedule
from jaxnas.training.scoring import Compression
from jaxnas.training.task import Task

CALLS = 3  # of the training program, each `steps_per_call`; the first is not counted
LONGEST = 6.0  # seconds; no further call after them


class Probed(NamedTuple):
    """What is compiled by then, and by what."""

    programs: tuple[Program, ...]
    compiler: Compiler


def probe(
    pace: Pace,
    plan: Plan,
    steps: float,
    task: Task,
    windows: int,
    lone: Compression | None,
    machine: Machine,
) -> Probed:
    """Compiles and runs two of the plan's programs, as a generation would.

    Nothing is learned from one that takes more memory than there is.

    Args:
      pace: learns from it.
      plan: of candidates that may be trained.
      steps: that a member's predicted seconds are of, its scoring among them.
      task: see `Task`.
      windows: that score a member.
      lone: the only compression, if there are not several.
      machine: what it trains on.
    """
    buckets = _chosen(plan)
    rates, device = machine.rates, machine.devices[0]
    compiler = Compiler(task, windows, lone, machine.cores, pace, rates)
    with ThreadPoolExecutor(len(buckets)) as pool:
        jobs = [compiler.ask(bucket.program, device) for bucket in buckets]
        ready = [job.result() for job in jobs]

        def run(bucket: Bucket, compiled: Compiled) -> None:
            size = task.settings.steps_per_call
            a_call = bucket.seconds / len(bucket.groups) * size / steps
            shape, lanes = bucket.program.shape, bucket.program.lanes
            group = Group(program=bucket.program, configs=[shape] * lanes)
            schedule = Schedule.over(CALLS * size, task.settings)
            running = Running(group, task, schedule, device)
            starts = np.zeros((size, task.settings.batch), np.int32)
            running.advance(compiled.train, starts)
            begin = time.monotonic()
            for _ in range(CALLS - 1):
                with pace.timed("call", a_call):
                    running.advance(compiled.train, starts)
                if time.monotonic() - begin > LONGEST:
                    break

        def try_to_run(bucket: Bucket, compiled: Compiled) -> None:
            try:
                check_memory(compiled, machine.memory)
                run(bucket, compiled)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if too_large(error) is None:
                    raise

        list(pool.map(try_to_run, buckets, ready))
    return Probed(tuple(bucket.program for bucket in buckets), compiler)


def _chosen(plan: Plan) -> Sequence[Bucket]:
    """Of the half that compiles the fastest, the two whose calls take longest."""
    quick = sorted(plan.buckets, key=lambda one: one.compile_seconds)
    quick = quick[: max(2, len(quick) // 2)]
    return sorted(quick, key=lambda one: -one.seconds / len(one.groups))[:2]
