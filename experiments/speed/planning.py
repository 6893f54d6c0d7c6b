"""What the planner predicts beside what happens: seconds and bytes.

    python experiments/speed/planning.py [--plans N] [--small] [--out FILE]

Draws populations of all families, plans each, runs it from an empty compilation
cache, and prints predicted and real seconds; and for each program the predicted
bytes beside what XLA says. The last lines are the median errors.
"""

import argparse
import json
import time

import jax
import numpy as np
from measured import synthetic_task

from arch import ArchitectureConfig
from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS
from arch.families import FAMILIES
from jaxnas.commands.options import file_to_write
from jaxnas.population.call import Outcome, Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import local_machine
from jaxnas.population.executor import execute
from jaxnas.population.planner import planner_for
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.training.scoring import Compression
from jaxnas.training.single import training_config

# (window, batch, vocabulary)
TASKS = ((32, 4, 512), (64, 4, 1024), (128, 2, 512))


def population(rng: np.random.Generator, task: tuple, small: bool):
    """Members of one or two families, and the steps that they train for."""
    families = rng.choice(FAMILIES, 2)
    configs = []
    for _ in range(int(rng.integers(2, 5 if small else 9))):
        configs.append(
            ArchitectureConfig(
                arch_type=str(rng.choice(families)),
                num_layers=int(rng.integers(2, 3 if small else 7)),
                hidden_dim=int(rng.choice((32, 64) if small else (64, 96, 128, 192))),
                num_heads=4,
                ffn_multiplier=float(rng.choice((2.0, 3.0, 4.0))),
                normalization=str(rng.choice(NORMALIZATIONS)),
                activation=str(rng.choice(ACTIVATIONS)),
                position_encoding=str(rng.choice(POSITION_ENCODINGS)),
                residual_dropout=0.1,
                vocab_size=task[2],
                max_seq_length=task[0],
            )
        )
    steps = 20 if small else int(rng.choice((40, 100, 200)))
    return list(dict.fromkeys(map(training_config, configs))), steps


def run(at: int, small: bool) -> tuple[dict, list[dict]]:
    """One plan: its seconds, and its programs' bytes."""
    rng = np.random.default_rng(at)
    dimensions = TASKS[at % len(TASKS)]
    task = synthetic_task(*dimensions)
    configs, steps = population(rng, dimensions, small)
    machine = local_machine()
    planner = planner_for(machine, task.settings, steps, scoring=0.0)
    begin = time.monotonic()
    plan = planner.plan(configs)
    compiler = Compiler(task, 64, Compression("fp16", 0.0))
    starts = rng.integers(0, 3000, (steps, task.settings.batch), dtype=np.int32)
    windows = np.resize(task.dataset.train, (64, dimensions[0] + 1)).astype(np.int32)
    work = Work(task=task, starts=starts, windows=windows, wanted={})

    def take(outcome: Outcome) -> bool:
        if outcome.error is not None:
            raise outcome.error
        return True

    execute(
        plan,
        {str(number): config for number, config in enumerate(configs)},
        work,
        compiler,
        take,
        devices=machine.devices,
        workers=machine.workers,
        memory=machine.memory,
    )
    took = time.monotonic() - begin
    memory = []
    for bucket in plan.buckets:
        device = machine.devices[bucket.device]
        real = compiler.ask(bucket.program, device).result().memory
        predicted = planner.rates.memory_bytes(bucket.program, task.settings)
        memory.append({"program": bucket.program.to_dict(), "real": real})
        memory[-1]["predicted"] = predicted
    about = {"members": len(configs), "steps": steps, "buckets": len(plan.buckets)}
    return about | {"predicted": plan.seconds, "real": took}, memory


def error(found: list[dict]) -> float:
    """The median relative error of the predictions."""
    ratios = [one["predicted"] / one["real"] for one in found]
    return float(np.median(np.abs(np.asarray(ratios) - 1)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plans", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="tiny models")
    parser.add_argument("--out", type=file_to_write, help="write the figures as JSON")
    given = parser.parse_args()
    table = plain_table("Plans", "plan")
    add_numbers(table, "members", "steps", "buckets", "predicted s", "real s", "ratio")
    plans, programs = [], []
    for at in range(given.plans):
        plan, memory = run(at, given.small)
        jax.clear_caches()
        plans.append(plan)
        programs += memory
        table.add_row(
            str(at),
            *(str(plan[name]) for name in ("members", "steps", "buckets")),
            f"{plan['predicted']:.1f}",
            f"{plan['real']:.1f}",
            f"{plan['predicted'] / plan['real']:.2f}",
        )
    console = plain_console()
    console.print(table)
    console.print(f"median error of {len(plans)} plans' seconds: {error(plans):.0%}")
    console.print(
        f"median error of {len(programs)} programs' bytes: {error(programs):.0%}"
    )
    if given.out:
        found = {"jax": jax.__version__, "plans": plans, "programs": programs}
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
