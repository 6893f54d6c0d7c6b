"""Models alone for equal seconds, and which of them their first steps would choose.

    python experiments/equal_time/alone.py --out experiments/equal_time

Each model trains on one core for 40 and for 120 seconds, from untrained weights, with
a rate that decays in the last half of the steps. A model that is in alone.json is not
trained again. Then the loss that each comes to is drawn on from the first 600 or
1,200 steps of its curve, as a run with a budget does, by one exponent after another:
what would have been chosen, and by how much it ends above the best.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from arch import ArchitectureConfig
from jaxnas.data import prepare
from jaxnas.runtime import set_up
from jaxnas.storage.files import write_json
from jaxnas.training.curves import extrapolated, points_of
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import Schedule, batch_starts
from jaxnas.training.scoring import score_windows
from jaxnas.training.settings import LAST_DECAY, TrainSettings
from jaxnas.training.single import continue_training, starting_state
from jaxnas.training.task import Task

SECONDS = (40, 120)
SEEN = (600, 1200)  # steps of a curve
EXPONENTS = (None, 0.2, 0.3, 0.4, 0.5)  # None: the loss as it is then
VOCABULARY, WINDOW, WINDOWS, MOST = 1024, 64, 512, 40_000
MEASURED = 200  # steps, to know how long one takes
MODELS = {
    "llama-2x80": ("transformer", 2, 80, 3.0),
    "llama-4x64": ("transformer", 4, 64, 3.0),
    "linear-3x64": ("linear_transformer", 3, 64, 3.0),
    "mamba-6x96": ("mamba", 6, 96, 2.0),
    "mamba-3x64": ("mamba", 3, 64, 2.0),
    "rwkv-3x64": ("rwkv", 3, 64, 2.0),
    "rwkv-6x64": ("rwkv", 6, 64, 2.0),
    "rwkv-5x96": ("rwkv", 5, 96, 2.0),
    "rwkv-3x128": ("rwkv", 3, 128, 2.0),
    "rwkv-5x192": ("rwkv", 5, 192, 2.0),
}


def main() -> None:
    """Trains what is missing; prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    file = options.out / "alone.json"
    if options.model is not None:
        write_json(options.out / f"{options.model}.json", _trained(options.model))
        return
    found = json.loads(file.read_text()) if file.exists() else {}
    cores = sorted(os.sched_getaffinity(0))
    missing = [name for name in MODELS if name not in found]
    while missing:
        now, missing = missing[: len(cores)], missing[len(cores) :]
        processes = [
            _process(name, options.out, core)
            for name, core in zip(now, cores, strict=False)
        ]
        for name, process in zip(now, processes, strict=True):
            if process.wait():
                sys.exit(f"{name}: ended with an error")
            part = options.out / f"{name}.json"
            found[name] = json.loads(part.read_text())
            part.unlink()
            write_json(file, found)
    _print_tables(found)


def _process(name: str, out: Path, core: int) -> subprocess.Popen:
    command = [sys.executable, __file__, "--out", str(out), "--model", name]
    return subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {core}))


def _trained(name: str) -> dict:
    """One model, for each number of seconds."""
    set_up()
    dataset = prepare("stdlib", VOCABULARY)
    settings = TrainSettings(
        window=WINDOW,
        batch=8,
        learning_rate=6e-3,
        warmup_share=0.05,
        decay_share=LAST_DECAY,
    )
    task = Task(dataset=dataset, settings=settings, seed=0, dtype=np.dtype("float32"))
    family, layers, width, ratio = MODELS[name]
    config = ArchitectureConfig(
        arch_type=family,
        num_layers=layers,
        hidden_dim=width,
        num_heads=width // 16,
        ffn_multiplier=ratio,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="alibi" if family == "linear_transformer" else "rope",
        vocab_size=VOCABULARY,
        max_seq_length=WINDOW,
    ).canonical()
    length = PhaseLength(samples=MOST * settings.batch, epochs=1)
    starts = batch_starts(0, len(dataset.train), settings, length, "finish")

    def train(steps: int) -> tuple:
        begun, losses, times = starting_state(config, task), [], []
        schedule = Schedule.over(steps, settings)
        course = starts[:steps], "finish", schedule
        for state, found in continue_training(config, task, begun, *course):
            params = state.params
            losses.append(found)
            times.append(time.monotonic())
        calls = len(times) - 1
        a_step = (times[-1] - times[0]) / (calls * settings.steps_per_call)
        return params, np.concatenate(losses), a_step

    a_step = train(MEASURED)[-1]
    row: dict = {"ms": round(1e3 * a_step, 2), "steps": {}, "bits": {}, "curve": {}}
    for seconds in SECONDS:
        steps = min(MOST, int(seconds / a_step))
        params, losses, _ = train(steps)
        sums = score_windows(config, task, params, task.windows("test", WINDOWS))
        row["steps"][str(seconds)] = steps
        row["bits"][str(seconds)] = round(sums.metrics().bits_per_byte, 4)
    warm = int(0.05 * steps)  # of the longer one, whose stable part is the longest
    for seen in SEEN:
        stable = losses[warm : min(seen, steps // 2)]
        row["curve"][str(seen)] = points_of(stable, warm)
    return row


def _print_tables(found: dict) -> None:
    seconds = " | ".join(f"{s} s" for s in SECONDS)
    print(f"| model | ms a step | {seconds} |")
    print("| --- |" + " --- |" * (1 + len(SECONDS)))
    for name, row in sorted(found.items(), key=lambda item: item[1]["bits"]["120"]):
        bits = (f"{row['bits'][str(s)]:.3f}" for s in SECONDS)
        print(f"| {name} | {row['ms']:.1f} | {' | '.join(bits)} |")
    print(
        "\n| exponent | after steps | " + " | ".join(f"{s} s" for s in SECONDS) + " |"
    )
    print("| --- | --- |" + " --- |" * len(SECONDS))
    for exponent in EXPONENTS:
        for seen in SEEN:
            cells = (_choice(found, str(s), str(seen), exponent) for s in SECONDS)
            name = "the loss then" if exponent is None else exponent
            print(f"| {name} | {seen} | {' | '.join(cells)} |")


def _choice(found: dict, seconds: str, seen: str, exponent: float | None) -> str:
    """What the curves would choose, and by how much it is worse than the best."""
    comes_to = {
        name: row["curve"][seen][-1][1]
        if exponent is None
        else extrapolated(row["curve"][seen], row["steps"][seconds], exponent)
        for name, row in found.items()
    }
    bits = {name: row["bits"][seconds] for name, row in found.items()}
    chosen = min(comes_to, key=comes_to.__getitem__)
    return f"{chosen} {bits[chosen] - min(bits.values()):+.3f}"


if __name__ == "__main__":
    main()
