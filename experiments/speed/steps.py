"""What a training step takes on one core, beside PyTorch and beside another clone.

    python experiments/speed/steps.py [--against FOLDER] [--rounds N] [--small]

CPU time of single-threaded processes pinned to one core, each contender in turn,
round after round; the least of all calls. FOLDER is another clone of this project,
say of an earlier commit. "dots" is the share of matrix products in a profile.
Batches of 4 x 64 tokens, a vocabulary of 1,024; at hidden 32-64 of 4 x 32, 512.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve()
SECONDS = 3.0  # that each call of a contender is repeated for
# Family, layers, width, window, vocabulary.
CASES = (
    ("transformer", 2, 32, 32, 512),
    ("transformer", 2, 64, 32, 512),
    ("transformer", 6, 96, 64, 1024),
    ("transformer", 2, 128, 64, 1024),
    ("transformer", 6, 256, 64, 1024),
    ("linear_transformer", 4, 64, 64, 1024),
    ("mamba", 4, 64, 64, 1024),
    ("rwkv", 4, 64, 64, 1024),
)
INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = .*? (dot|fusion)\(")
CALLED = re.compile(r"calls=%?([\w.-]+)")
WHOLES = ("while", "call", "conditional")  # their parts are listed too
SMALL = (("transformer", 1, 16, 16, 64), ("rwkv", 1, 16, 16, 64))
BATCH = 4


def config_fields(case: tuple) -> dict:
    """A config's fields."""
    family, layers, width, window, vocabulary = case
    return {
        "arch_type": family,
        "num_layers": layers,
        "hidden_dim": width,
        "num_heads": 4,
        "ffn_multiplier": 4.0,
        "normalization": "layernorm",
        "activation": "gelu",
        "position_encoding": "absolute",
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "vocab_size": vocabulary,
        "max_seq_length": window,
    }


def least(call: Callable[[], None], steps: int, seconds: float) -> float:
    """Milliseconds of CPU a step."""
    call()
    best, end = float("inf"), time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.process_time()
        call()
        best = min(best, (time.process_time() - begin) / steps)
    return best * 1e3


def ours(case: tuple, seconds: float) -> dict:
    """The exact program's step, and the share of products in it."""
    import jax
    import numpy as np
    from measured import synthetic_task

    from arch import ArchitectureConfig
    from jaxnas.population.lanes import Group, Running
    from jaxnas.population.program import Program, compile_training
    from jaxnas.training.loop import Schedule

    *_, window, vocabulary = case
    task = synthetic_task(window, BATCH, vocabulary)
    config = ArchitectureConfig(**config_fields(case)).canonical()
    program, [device] = Program(shape=config), jax.devices()
    begin = time.process_time()
    train = compile_training(program, task, device)
    compiling = time.process_time() - begin
    group = Group(program=program, configs=[config])
    running = Running(group, task, Schedule(1e-3, 1.0, 1.0, 1e9), device)
    size = task.settings.steps_per_call
    drawn = np.random.default_rng(0).integers(0, 4000, (size, BATCH))

    def call() -> None:
        running.advance(train, drawn.astype(np.int32))

    return {
        "step": least(call, size, seconds),
        "compile": compiling,
        "products": products(train.as_text(), call),
    }


def products(text: str, call: Callable[[], None]) -> float:
    """The share of a call's operations that are matrix products, by time."""
    import jax

    names, spent = product_names(text), {True: 0.0, False: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        [found] = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(found)).planes
        for event in (
            e for plane in planes for line in plane.lines for e in line.events
        ):
            if "hlo_op" in dict(event.stats) and not event.name.startswith(WHOLES):
                spent[event.name in names] += event.duration_ns
    return spent[True] / max(1.0, sum(spent.values()))


def product_names(text: str) -> set[str]:
    """The products of a compiled program, and the fusions that hold one."""
    names, holding, fusions = set(), set(), {}
    computation = ""
    for line in text.splitlines():
        if line.endswith("{"):
            computation = line.split()[0].strip("%")
        elif found := INSTRUCTION.match(line):
            name, operation = found.groups()
            if operation == "dot":
                names.add(name)
                holding.add(computation)
            elif called := CALLED.search(line):
                fusions[name] = called[1]
    return names | {name for name, called in fusions.items() if called in holding}


def torch_eager(case: tuple, seconds: float) -> dict:
    """The same model, eager, on one thread."""
    import numpy as np
    import torch
    from contenders.torch_eager import model_of, optimizer_for, train_step

    torch.set_num_threads(1)
    *_, window, vocabulary = case
    model = model_of(config_fields(case) | {"tie_embeddings": False})
    optimizer = optimizer_for(model)
    rng = np.random.default_rng(0)
    windows = rng.integers(0, vocabulary, (BATCH, window + 1)).astype(np.int32)
    return {"step": least(lambda: train_step(model, optimizer, windows), 1, seconds)}


CONTENDERS = {"ours": ours, "torch": torch_eager}


def spawn(name: str, case: tuple, clone: Path, seconds: float) -> dict:
    """A contender's run, with the code of a clone."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    settings = {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "PYTHONPATH": os.pathsep.join([str(clone), str(HERE.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, str(HERE), "--run", name, json.dumps([case, seconds])]
    done = subprocess.run(
        words, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def parse() -> argparse.Namespace:
    """The command line; with --run, one contender's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another clone, to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny models, one round")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Prints the table."""
    options = parse()
    if options.run:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        name, given = options.run
        case, seconds = json.loads(given)
        print(json.dumps(CONTENDERS[name](tuple(case), seconds)))
        return
    from jaxnas.report.tables import add_numbers, plain_console, plain_table

    table = plain_table("A training step, ms of CPU on one core", "family, L, H")
    names = ["ms", "dots", "compile s", "torch", "ratio"]
    if options.against:
        names += ["before", "ratio ", "compile"]
    add_numbers(table, *names)
    seconds, rounds = (0.2, 1) if options.small else (SECONDS, options.rounds)
    for case in SMALL if options.small else CASES:
        clone = HERE.parents[2]
        kinds = [("ours", "ours", clone)]
        if case[0] == "transformer":
            kinds.append(("torch", "torch", clone))
        if options.against:
            kinds.append(("before", "ours", options.against.resolve()))
        found: dict[str, dict] = {}
        for _ in range(rounds):
            for label, name, folder in kinds:
                one = spawn(name, case, folder, seconds)
                best = found.setdefault(label, one)
                if one["step"] < best["step"]:
                    found[label] = one
        table.add_row(f"{case[0]}, {case[1]}, {case[2]}", *cells(found, names))
    plain_console().print(table)


def cells(found: dict[str, dict], names: list[str]) -> list[str]:
    """A row's numbers, in the order of the columns."""
    mine = found["ours"]
    values = {
        "ms": f"{mine['step']:.1f}",
        "dots": f"{mine['products']:.0%}",
        "compile s": f"{mine['compile']:.1f}",
    }
    for other, ratio in (("torch", "ratio"), ("before", "ratio ")):
        if other in found:
            values[other] = f"{found[other]['step']:.1f}"
            values[ratio] = f"{mine['step'] / found[other]['step']:.2f}"
    if "before" in found:
        values["compile"] = f"{found['before']['compile']:.1f}"
    return [values.get(name, "-") for name in names]


if __name__ == "__main__":
    main()
