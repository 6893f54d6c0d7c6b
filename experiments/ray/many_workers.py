"""What giving out calls costs a run of many workers: calls that sleep, not train.

    python experiments/ray/many_workers.py --out experiments/ray/many_workers.json

The pool, the calls that are sent and the outcomes that come back are a run's; the
workers are threads of a few processes of Ray, each of which sleeps as long as its
call's training is predicted to take, scaled, and returns weights of the model's size.
One call in a hundred is lost with its worker.
"""

import argparse
import dataclasses
import heapq
import json
import random
import resource
import time
from concurrent.futures import Future
from pathlib import Path

import jax
import numpy as np
import ray

from arch.cost import parameters
from jaxnas.data import prepare
from jaxnas.population.call import Outcome, Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import local_machine
from jaxnas.population.executor import execute
from jaxnas.population.planner import planner_for
from jaxnas.population.remote_call import About, Ran
from jaxnas.spaces import load_space
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import training_config
from jaxnas.training.task import Task
from search import uniform

WORKERS, CANDIDATES, PROCESSES = 200, 2000, 4
MEAN = 5.0  # seconds that a call sleeps
LOST = 100  # of so many calls one is lost


@ray.remote(num_cpus=0, max_concurrency=WORKERS // PROCESSES)
class Sleeper:
    """Many workers in one process."""

    def run(self, plan, data, shared, call, seconds, lost):
        """Sleeps, and leaves what a training of the call's size would."""
        time.sleep(seconds)
        if lost:
            raise RuntimeError("lost")
        [key] = call.keys
        weights = np.zeros(parameters(call.candidates[key]), np.float32)
        outcome = Outcome(
            key=key, program=call.program, loss=1.0, params={"w": weights}
        )
        return Ran([outcome], None, 0.0, seconds)


class Member:
    """See `jaxnas.population.ray_cluster.Member`."""

    def __init__(self, sleeper, seconds, draw):
        self._sleeper, self._seconds, self._draw = sleeper, seconds, draw
        self.restart()

    def restart(self):
        self.about = Future()
        self.about.set_result(About("cpu", "cpu", 1e12, "", ""))

    is_there = True

    def run(self, plan, data, shared, call):
        [key] = call.keys
        lost = self._draw.random() < 1 / LOST
        arguments = plan, [data], shared, call, self._seconds[key], lost
        return self._sleeper.run.remote(*arguments).future()


class Cluster:
    """See `jaxnas.population.ray_cluster.Cluster`."""

    def __init__(self, seconds):
        draw = random.Random(0)
        sleepers = [Sleeper.remote() for _ in range(PROCESSES)]
        self.members = [
            Member(sleepers[at % PROCESSES], seconds, draw) for at in range(WORKERS)
        ]
        self.lost, self.holders = 0, {}

    def restart(self, member):
        member.restart()

    def say(self, text):
        self.lost += "is lost" in text

    def watch(self, busy, there):
        """Nobody looks."""

    def grow(self):
        """None joins."""

    def next_plan(self):
        return 1

    def data(self, dataset):
        return ray.put(dataset)

    def shared(self, work):
        return ray.put(work)

    def fault(self, about):
        return None


def main() -> None:
    """Runs a plan and writes what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="stdlib")
    options = parser.parse_args()
    settings = TrainSettings(window=64, batch=8, learning_rate=1e-3)
    dataset = prepare(options.data, 2048)
    task = Task(dataset=dataset, settings=settings, seed=0, dtype=np.dtype("float32"))
    configs = some_configs(dataset.vocab_size, settings.window)
    machine = local_machine()
    planner = planner_for(machine, settings, 100, 0.0)
    plan = planner.fixed(configs, exact=True)
    predicted = {
        at: bucket.seconds / len(bucket.members)
        for bucket in plan.buckets
        for at in bucket.members
    }
    scale = MEAN * len(predicted) / sum(predicted.values())
    seconds = {at: scale * one for at, one in predicted.items()}
    ray.init("local", num_cpus=1, include_dashboard=False)
    cluster = Cluster(seconds)
    starts = np.zeros((100, settings.batch), np.int32)
    work = Work(task=task, starts=starts, windows=task.windows("test", 8), wanted={})
    taken = []

    def take(outcome) -> bool:
        taken.append(dataclasses.replace(outcome, params=None))
        return True

    before = resource.getrusage(resource.RUSAGE_SELF)
    begin, cpu = time.monotonic(), time.process_time()
    execute(
        plan,
        dict(enumerate(configs)),
        work,
        Compiler(task, None, None),
        take,
        devices=jax.local_devices()[:1],
        cluster=cluster,
    )
    wall, cpu = time.monotonic() - begin, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF)
    order = [at for bucket in plan.buckets for at in bucket.members]
    ideal = makespan([seconds[at] for at in order])
    found = {
        "workers": WORKERS,
        "candidates": len(taken),
        "failed": sum(one.error is not None for one in taken),
        "calls lost and given out again": cluster.lost,
        "seconds": round(wall, 2),
        "seconds if nothing cost anything": round(ideal, 2),
        "ms a candidate, of the driver's CPU": round(1000 * cpu / len(taken), 2),
        "driver MiB before": before.ru_maxrss // 1024,
        "driver MiB at most": after.ru_maxrss // 1024,
        "mean MiB of weights": round(
            4 * float(np.mean([parameters(one) for one in configs])) / 2**20, 2
        ),
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def some_configs(vocab_size, window):
    """Distinct models of the space nano, as they train."""
    space = load_space("nano")
    keys = jax.random.split(jax.random.key(0), 4 * CANDIDATES)
    genomes = np.asarray(jax.jit(jax.vmap(lambda key: uniform(key, space)))(keys))
    fields = {"vocab_size": vocab_size, "max_seq_length": window}
    models = [space.decode(tuple(map(int, one)), **fields) for one in genomes]
    return list(dict.fromkeys(map(training_config, models)))[:CANDIDATES]


def makespan(seconds):
    """Of calls that whoever is free takes in their order."""
    free = [0.0] * WORKERS
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


if __name__ == "__main__":
    main()
