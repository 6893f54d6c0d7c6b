"""What compiling costs on a CPU: layers one by one or a loop, fusion emitters or none.

    python experiments/speed/compiling.py [--width 64]

CPU-seconds to compile training and scoring, and CPU-milliseconds of a step of 8
windows of 64 tokens, the least of three calls of 20, in one process.
"""

import argparse
import functools
import time

import jax
import numpy as np
from measured import synthetic_task

from arch import ArchitectureConfig
from jaxnas.population import program as programs
from jaxnas.population.lanes import Group, Running
from jaxnas.population.program import Program, compile_scoring, compile_training
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.runtime import compiler_options
from jaxnas.training.loop import Schedule

FAMILIES = ("transformer", "linear_transformer", "rwkv", "mamba")
WAYS = (("exact", False), ("exact", True), ("exact_loop", False), ("exact_loop", True))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    width = parser.parse_args().width
    table = plain_table(f"Four layers, width {width}", "family", "layers", "emitters")
    add_numbers(table, "training, CPU s", "scoring, CPU s", "step, CPU ms")
    for family in FAMILIES:
        for form, quick in WAYS:
            figures = _measured(family, width, form, quick)
            layers = "a loop" if form == "exact_loop" else "one by one"
            table.add_row(family, layers, "no" if quick else "yes", *figures)
    plain_console().print(table)


def _measured(family: str, width: int, form: str, quick: bool) -> list[str]:
    options = compiler_options("cpu", quick)
    programs.compiler_options = lambda platform, quick: options
    task = synthetic_task(window=64, batch=8, vocabulary=1024)
    config = ArchitectureConfig(
        arch_type=family,
        num_layers=4,
        hidden_dim=width,
        num_heads=4,
        ffn_multiplier=3.0,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        vocab_size=1024,
        max_seq_length=64,
    ).canonical()
    program, device = Program(shape=config, form=form), jax.devices()[0]
    seconds, train = _timed(lambda: compile_training(program, task, device))
    scoring, _ = _timed(lambda: compile_scoring(program, task, 256, None, device))
    group = Group(program=program, configs=[config])
    running = Running(group, task, Schedule.over(20, task.settings), device)
    advance = functools.partial(running.advance, train, np.zeros((20, 8), np.int32))
    steps = [_timed(advance)[0] / 20 for _ in range(3)]
    return [f"{seconds:.1f}", f"{scoring:.1f}", f"{min(steps) * 1e3:.1f}"]


def _timed(function):
    begin = time.process_time()
    found = function()
    return time.process_time() - begin, found


if __name__ == "__main__":
    main()
