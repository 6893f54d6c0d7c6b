"""Bytes of a compiled training, beside those that are counted from the config.

    python experiments/memory/training_memory.py --rows FILE [--families A,B]
    python experiments/memory/training_memory.py --fit FILE [--out FILE]

Compiles the training program of seven models of every family, at several batches,
windows and vocabularies, and keeps what XLA's `memory_analysis()` says of it. --fit
fits the bytes of an activation, by kind, and checks each model with a fit that has not
seen its shape; --out writes the rates (jaxnas/population/train_memory.json is such a
file).
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import jax
import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))

from measured import synthetic_task

from arch import ArchitectureConfig
from arch.families import FAMILIES
from jaxnas.commands.options import file_to_write
from jaxnas.population.program import Program, compile_training
from jaxnas.population.train_memory import MemoryUse, training_memory, written
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.runtime import compute_dtype

# layers, width, vocabulary, batch, window, feed-forward, activation, tied
SHAPES = (
    (2, 64, 1024, 8, 64, 4.0, "gelu", False),
    (4, 128, 1024, 8, 64, 3.0, "swiglu", False),
    (6, 256, 4096, 8, 128, 2.0, "silu", True),
    (8, 128, 8192, 16, 128, 4.0, "swiglu", True),
    (3, 384, 2048, 4, 256, 3.0, "gelu", False),
    (12, 192, 1024, 4, 128, 4.0, "swiglu", False),
    (5, 96, 2048, 16, 64, 2.0, "relu2", True),
)


GROUPS = (("transformer", "grouped_query_attention"),)  # share their rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, help="add what is measured to this file")
    parser.add_argument("--fit", type=Path, help="fit this file's rows, measure none")
    parser.add_argument("--out", type=file_to_write, help="write the rates as JSON")
    parser.add_argument("--families", default=",".join(FAMILIES))
    given = parser.parse_args()
    if given.fit:
        rows = [json.loads(line) for line in given.fit.read_text().splitlines()]
        rates = show(rows)
        if given.out:
            about = {"machine": rows[0]["machine"], "models": len(rows)}
            text = json.dumps(about | {"bytes": rates}, indent=1)
            given.out.write_text(text + "\n")
        return
    for place, shape in enumerate(SHAPES):
        for family in given.families.split(","):
            row = measured(family, *shape) | {"shape": place}
            print(family, shape, f"{row['bytes'] / 2**20:.1f} MiB", flush=True)
            if given.rows:
                with given.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def show(rows: list[dict]) -> dict[str, list[float]]:
    """Fits all rows; prints each beside a fit that has not seen its shape."""
    table = plain_table("Memory of a training, MiB", "family", "model")
    add_numbers(table, "measured", "predicted", "error", "left out")
    grouped = {name for group in GROUPS for name in group}
    rates, worst = {}, []
    for group in (*GROUPS, *((name,) for name in FAMILIES if name not in grouped)):
        own = [row for row in rows if row["config"]["arch_type"] in group]
        fitted = fit(own)
        rates |= {name: [round(float(rate), 4) for rate in fitted] for name in group}
        for row in own:
            others = [one for one in own if one["shape"] != row["shape"]]
            errors = [
                of(row, rate) / row["bytes"] - 1 for rate in (fitted, fit(others))
            ]
            worst.append(errors)
            config = row["config"]
            table.add_row(
                config["arch_type"],
                f"L{config['num_layers']} H{config['hidden_dim']} "
                f"V{config['vocab_size']} {row['batch']} x {row['window']}",
                f"{row['bytes'] / 2**20:.1f}",
                f"{of(row, fitted) / 2**20:.1f}",
                *(f"{error:+.1%}" for error in errors),
            )
    plain_console().print(table)
    sizes = np.abs(np.asarray(worst))
    for name, column in zip(("fitted", "left out"), sizes.T, strict=True):
        print(f"{name}: median {np.median(column):.1%}, worst {column.max():.1%}")
    return rates


def values_of(row: dict) -> tuple[int, MemoryUse]:
    """Bytes of weights, gradients and moments; and what is written, by kind."""
    config = ArchitectureConfig(**row["config"])
    counted = training_memory(config, row["batch"], row["window"])
    return sum(counted[:3]), written(config, row["batch"], row["window"])


def fit(rows: list[dict]) -> np.ndarray:
    """Bytes of each kind of value, none negative, by relative error."""
    found = [values_of(row) for row in rows]
    total = np.asarray([row["bytes"] for row in rows], float)
    left = total - [known for known, _ in found]
    values = np.asarray([kinds for _, kinds in found], float)
    return nnls(values / total[:, None], left / total)[0]


def of(row: dict, rates: np.ndarray) -> float:
    """Predicted bytes."""
    known, values = values_of(row)
    return known + float(np.dot(rates, values))


def measured(
    family, layers, width, vocabulary, batch, window, ffn, activation, tied
) -> dict:
    """One training's bytes by `memory_analysis()`, and what it was."""
    config = ArchitectureConfig(
        arch_type=family,
        num_layers=layers,
        hidden_dim=width,
        num_heads=2 * max(1, width // 64),
        ffn_multiplier=ffn,
        normalization="rmsnorm",
        activation=activation,
        position_encoding="rope",
        vocab_size=vocabulary,
        max_seq_length=window,
        tie_embeddings=tied,
    ).canonical()
    task = synthetic_task(window, batch, vocabulary, compute_dtype())
    begin = time.monotonic()
    [device, *_] = jax.devices()
    program = compile_training(Program(shape=config), task, device)
    found = program.memory_analysis()
    parts = {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
        "shared": found.alias_size_in_bytes,
    }
    total = parts["arguments"] + parts["outputs"] + parts["temporary"]
    return {
        "config": config.to_dict(),
        "batch": batch,
        "window": window,
        "bytes": total - parts["shared"] - task.dataset.train.nbytes,
        **parts,
        "seconds": round(time.monotonic() - begin, 1),
        "machine": f"{device.device_kind} {platform.machine()} jax {jax.__version__}",
    }


if __name__ == "__main__":
    main()
