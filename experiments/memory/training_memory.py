"""Bytes of a compiled training, beside those that are counted from the config.

    python experiments/memory/training_memory.py --rows FILE [--families A,B]
    python experiments/memory/training_memory.py --fit FILE [--out FILE]

Compiles the training program of a few models of every family, at several batches,
windows and vocabularies, and keeps what XLA's `memory_analysis()` says of it. --fit
fits the bytes of an activation, by kind, to one half of the models and checks the
other half; --out writes them (jaxnas/population/memory.json is such a file).
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))

from measured import synthetic_task

from arch import ArchitectureConfig
from arch.families import FAMILIES
from jaxnas.population.program import Program, compile_training
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--families", default=",".join(FAMILIES))
    given = parser.parse_args()
    for place, shape in enumerate(SHAPES):
        for family in given.families.split(","):
            row = measured(family, *shape) | {"shape": place}
            with given.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(family, shape, f"{row['bytes'] / 2**20:.1f} MiB", flush=True)


def measured(
    family, layers, width, vocabulary, batch, window, ffn, activation, tied
) -> dict:
    """One training's bytes by `memory_analysis()`, and what it was."""
    config = ArchitectureConfig(
        arch_type=family,
        num_layers=layers,
        hidden_dim=width,
        num_heads=max(1, width // 32),
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
