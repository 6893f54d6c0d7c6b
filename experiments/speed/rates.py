"""Fits what the planner predicts: seconds of a compilation, of a step, and bytes.

    python experiments/speed/rates.py [--small] [--out FILE]

Compiles and runs programs of every family, form and some sizes, two or more at
once as a search does, and fits non-negative rates to the counted work. Prints
the error of the fit; --out writes the rates (jaxnas/population/rates.json is
such a file).
"""

import argparse
import itertools
import json
import platform

import jax
import numpy as np

from arch import ArchitectureConfig
from arch.families import FAMILIES
from arch.padding import common_shape
from jaxnas.commands.options import file_to_write
from jaxnas.population.calibration import ProgramTiming, fit, measure, synthetic_task
from jaxnas.population.program import Program
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.runtime import workers_of

# (layers, width, window, batch, vocabulary)
SIZES = (
    (2, 32, 32, 4, 512),
    (6, 64, 64, 4, 1024),
    (2, 128, 128, 2, 512),
    (4, 128, 64, 4, 2048),
    (4, 256, 64, 4, 1024),
    (2, 512, 64, 4, 1024),
)
SMALL = ((1, 32, 16, 2, 257), (2, 64, 16, 2, 300))


def programs_of(family: str, sizes) -> list[tuple[Program, tuple]]:
    """Each size in some form, all forms among them."""
    found = []
    forms = itertools.cycle(("looped", "unrolled", "exact"))
    for (layers, width, *dimensions), form in zip(sizes, forms, strict=False):
        config = ArchitectureConfig(
            arch_type=family,
            num_layers=layers,
            hidden_dim=width,
            num_heads=4,
            ffn_multiplier=4.0,
            normalization="layernorm",
            activation="swiglu" if layers > 2 else "gelu",
            position_encoding="rope",
            residual_dropout=0.1,
            vocab_size=dimensions[-1],
            max_seq_length=dimensions[0],
        )
        shape = config.canonical() if form == "exact" else common_shape([config])
        found.append((Program(shape=shape, form=form), tuple(dimensions)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a minute's version")
    parser.add_argument("--out", type=file_to_write, help="write the rates as JSON")
    given = parser.parse_args()
    [device, *_] = jax.devices()
    workers = workers_of(device)
    measured: dict[str, list[ProgramTiming]] = {}
    for family in FAMILIES:
        for program, dimensions in programs_of(family, SMALL if given.small else SIZES):
            task = synthetic_task(*dimensions)
            found = measure(program, task, device, workers)
            measured.setdefault(family, []).append(found)
            shape = f"L{program.shape.num_layers} H{program.shape.hidden_dim}"
            print(
                f"{family} {shape} {program.form}: compile {found.compile:.1f} s, "
                f"step {found.step * 1e3:.2f} ms, {found.memory / 2**20:.1f} MiB",
                flush=True,
            )
    rates = fit(measured, workers)
    table = plain_table("Median relative error of the fit", "family")
    add_numbers(table, "step", "compile", "memory")
    for family, every in measured.items():
        errors = [
            [
                rates.step_seconds(one.program, one.program.shape, one.settings)
                / one.step,
                rates.compile_seconds(one.program) / one.compile,
                rates.memory_bytes(one.program, one.settings) / one.memory,
            ]
            for one in every
        ]
        middle = np.median(np.abs(np.asarray(errors) - 1), axis=0)
        table.add_row(family, *[f"{value:.2f}" for value in middle])
    plain_console().print(table)
    if given.out:
        about = {
            "command": "python experiments/speed/rates.py",
            "device": device.device_kind,
            "machine": f"{platform.machine()}, {workers} workers",
            "jax": jax.__version__,
        }
        text = json.dumps(about | {"rates": rates.to_dict()}, indent=1)
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
