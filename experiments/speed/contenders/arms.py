"""The contenders of the population benchmark, each in a process of its own."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from contenders.scenarios import CannotRunError, Scenario, draw

MAIN = Path(__file__).parents[1] / "population.py"


class Arm(NamedTuple):
    """A contender: a module with `set_up` and `train`."""

    title: str
    module: str
    arguments: tuple[str, ...] = ()  # of `train`
    cached: bool = False  # runs twice with one compilation cache: cold and warm


ARMS = {
    "planned": Arm("(a) ours, planned", "contenders.ours", ("planned",), True),
    "flax": Arm("(b) Flax, jit each", "contenders.flax_each"),
    "torch": Arm("(c) PyTorch, eager", "contenders.torch_eager"),
    "torch_pair": Arm("(c2) PyTorch, two processes", "contenders.torch_pair"),
    "one_bucket": Arm("(d) ours, one bucket", "contenders.ours", ("one_bucket",), True),
    "exact": Arm("(e) ours, exact", "contenders.ours", ("exact",), True),
}


def measure(name: str, scenario: Scenario) -> dict:
    """Trains the population in this process.

    The clock runs from configs and tokens on the host to the last loss there:
    initial weights, tracing, compilation and training. Imports and the arm's
    `set_up` are timed apart.

    Returns:
      JSON-able; with "unable", the reason, if the arm cannot run here.
    """
    arm = ARMS[name]
    problem = draw(scenario)
    try:
        began = time.perf_counter()
        module = importlib.import_module(arm.module)
        imported = time.perf_counter()
        found = module.set_up(problem)
        ready = time.perf_counter()
        found |= module.train(problem, *arm.arguments)
    except (ModuleNotFoundError, NotImplementedError, CannotRunError) as error:
        return {"arm": name, "unable": str(error)}
    return {
        "arm": name,
        "seconds": time.perf_counter() - ready,
        "import_seconds": imported - began,
        "set_up_seconds": ready - imported,
        **found,
    }


def spawn(name: str, words: list[str], cache: Path | None, limit: float) -> dict:
    """Measures an arm in a new process.

    Args:
      name: in ARMS.
      words: the scenario, as arguments of `population.py`.
      cache: JAX's compilation cache; None for none at all.
      limit: seconds, after which the process is given up.

    Returns:
      As `measure`; with "crashed" if the process did not end as it should.
    """
    command = [sys.executable, str(MAIN), "--arm", name, *words]
    try:
        done = subprocess.run(
            command,
            env=environment(cache),
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"arm": name, "unable": f"takes more than {limit:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        reason = f"exit {done.returncode}: {last}"
        return {"arm": name, "unable": reason, "crashed": True}
    return json.loads(done.stdout.splitlines()[-1])


def environment(cache: Path | None) -> dict[str, str]:
    """The caller's, but for the compilation cache, which keeps every program."""
    prefixes = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(prefixes)
    }
    if cache is not None:
        kept |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    return kept
