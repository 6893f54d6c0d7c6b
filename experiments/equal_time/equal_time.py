"""Equal wall time: the default search, others, and no search at all.

    python experiments/equal_time/equal_time.py --out experiments/equal_time

Each cell is one run of `python -m jaxnas.run --budget` with the given limit and
seed: the default strategy, `random`, `genetic`, and the obvious model alone, which
has all of the time for its training (a space of that one model). Each begins with
an empty cache. A cell that is in result.json is not run again, and processes with
arms of their own can share the file. The README says how to read the table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tomli_w
from scipy import stats

from arch.cost import latency_ms, size_mib
from jaxnas.hardware import hardware_named
from jaxnas.pipeline.obvious import WIDTHS, llama_like
from jaxnas.storage.files import write_json

ARMS = ("default", "random", "genetic", "obvious")
SIZES = (1.0, 4.0)  # MiB
LATENCY = {1.0: 2.0, 4.0: 8.0}  # ms, for each size
FIELDS = ("num_layers", "hidden_dim", "num_heads", "ffn_dim", "tie_embeddings")
STAGES = ("search", "phases", "finish")  # of a run's timings
VOCABULARY, WINDOW = 1024, 64


def main() -> None:
    """Runs the cells that are missing; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="15m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    options = parser.parse_args()
    file = options.out / "result.json"
    found = _read(file)
    for seed in range(options.seeds):
        for size in options.sizes:
            for arm in options.arms:
                name = f"{options.budget} {size:g} MiB {arm} seed {seed}"
                if name not in found:
                    cell = _run(arm, size, seed, options.budget)
                    found = _read(file) | {name: cell}
                    write_json(file, found)
                    print(f"{name}: {_line(found[name])}", flush=True)
    _print_table(found, options)


def _read(file: Path) -> dict:
    return json.loads(file.read_text()) if file.exists() else {}


def _line(cell: dict) -> str:
    seconds = ", ".join(
        f"{name} {took:.0f} s" for name, took in cell["seconds"].items()
    )
    return (
        f"test {cell['bits_per_byte']:.3f} bits/byte, candidates {cell['candidates']}, "
        f"last steps {cell['final_steps']}; {seconds}"
    )


def _run(arm: str, size: float, seed: int, budget: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        given = ["--space", "nano"]
        if arm == "obvious":
            space = Path(folder) / "obvious.toml"
            space.write_text(tomli_w.dumps({"genes": _obvious(size)}))
            given = ["--space", str(space), "--strategy", "random"]
        elif arm != "default":
            given += ["--strategy", arm]
        out = Path(folder) / "run"
        command = [
            *(sys.executable, "-m", "jaxnas.run", "--budget", budget, "--out", out),
            *("--max-size", size, "--max-latency", LATENCY[size], "--seed", seed),
            *("--latency", "estimate", "--no-baseline", *given),
        ]
        empty = os.environ | {"JAXNAS_CACHE": f"{folder}/cache"}
        began = time.monotonic()
        ended = subprocess.run(
            list(map(str, command)), env=empty, stdout=subprocess.DEVNULL
        )
        if ended.returncode:
            sys.exit(f"{arm}, {size:g} MiB, seed {seed}: the run ended with an error")
        seconds = {"all": time.monotonic() - began} | _stages(out / "timings.jsonl")
        summary = json.loads((out / "summary.json").read_text())
    test = summary["final"]["splits"]["test"]["winner"]
    return {
        "bits_per_byte": test["bits_per_byte"],
        "accuracy": test["accuracy"],
        "candidates": summary["search"]["ok"],
        "final_steps": summary["final"]["steps"],
        "seconds": {name: round(took, 1) for name, took in seconds.items()},
        "winner": summary["winner"]["config"],
    }


def _stages(timings: Path) -> dict[str, float]:
    """Seconds of search, later phases and the last training with its scoring."""
    lines = map(json.loads, timings.read_text().splitlines())
    took = {line["stage"]: line["seconds"] for line in lines if "stage" in line}
    return {name: took[name] for name in STAGES if name in took}


def _obvious(size: float) -> dict:
    """The genes of the largest Llama-like model that keeps to the limits."""
    hardware = hardware_named("cpu-core")
    fits = [
        model
        for width in WIDTHS
        if size_mib(model := _model(width)) <= size
        and latency_ms(model, hardware) <= LATENCY[size]
    ]
    config = fits[-1].to_dict()
    config["ffn_dim"] = fits[-1].feedforward_dim
    return {name: [config[name]] for name in FIELDS}


def _model(width: int):
    return llama_like(width, vocab_size=VOCABULARY, max_seq_length=WINDOW)


def _print_table(found: dict, options: argparse.Namespace) -> None:
    """Means of the seeds; differences are seed by seed, with 95 % intervals."""
    print("| limit | arm | test bits/byte | less than obvious | candidates |")
    print("| --- | --- | --- | --- | --- |")
    for size in options.sizes:
        cells = {
            arm: [
                found[f"{options.budget} {size:g} MiB {arm} seed {seed}"]
                for seed in range(options.seeds)
            ]
            for arm in options.arms
        }
        bits = {
            arm: np.asarray([cell["bits_per_byte"] for cell in row])
            for arm, row in cells.items()
        }
        for arm, row in cells.items():
            counts = "/".join(str(cell["candidates"]) for cell in row)
            compared = "obvious" in bits and arm != "obvious"
            less = _mean(bits["obvious"] - bits[arm], "+") if compared else ""
            print(f"| {size:g} MiB | {arm} | {_mean(bits[arm])} | {less} | {counts} |")


def _mean(values: np.ndarray, sign: str = "") -> str:
    """The mean, and half of its 95 % interval by Student's t from two seeds on."""
    mean = f"{values.mean():{sign}.3f}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean} +- {half:.3f}"


if __name__ == "__main__":
    main()
