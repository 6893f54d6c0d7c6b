"""Fits what the planner predicts: seconds of a compilation, of a step, and bytes.

    python experiments/speed/rates.py [--small] [--rows FILE] [--out FILE]
    python experiments/speed/rates.py --fit FILE [--out FILE]

Compiles and runs programs of every family, form and some sizes, two or more at
once as a search does, and fits non-negative rates to the counted work. Prints
the error of the fit. --rows keeps what was measured, --fit fits what was kept,
--out writes the rates (jaxnas/population/rates.json and rates_gpu.json are such
files).
"""

import argparse
import json
import platform
from pathlib import Path

import jax
import numpy as np
from measured import ProgramTiming, fit, measure, synthetic_task

from arch import ArchitectureConfig
from arch.families import FAMILIES
from arch.padding import common_shape
from jaxnas.commands.options import file_to_write
from jaxnas.population.program import EXACT_FORMS, Program
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.runtime import compute_dtype, workers_of

FIGURES = ("compile", "step", "handling", "memory")

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
FORMS = tuple(zip(("looped", "unrolled", "exact") * 2, (1,) * 6, strict=True))
# On a GPU, with the forms and lanes that are measured there.
SIZES_GPU = (
    (8, 512, 128, 16, 8192),
    (4, 128, 64, 8, 1024),
    (4, 256, 128, 16, 8192),
    (4, 128, 64, 8, 1024),
    (12, 768, 128, 16, 8192),
    (16, 256, 128, 16, 8192),
)
FORMS_GPU = (
    ("exact", 1),
    ("looped", 8),
    ("looped", 8),
    ("looped", 1),
    ("exact_loop", 1),
    ("unrolled", 1),
)


def programs_of(family: str, sizes, forms) -> list[tuple[Program, tuple]]:
    """Each size in some form and number of lanes."""
    found = []
    for (layers, width, *dimensions), (form, lanes) in zip(sizes, forms, strict=False):
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
        exact = form in EXACT_FORMS
        shape = config.canonical() if exact else common_shape([config])
        program = Program(shape=shape, form=form, lanes=lanes, vmapped=lanes > 1)
        found.append((program, tuple(dimensions)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a minute's version")
    parser.add_argument("--rows", type=Path, help="add what is measured to this file")
    parser.add_argument("--fit", type=Path, help="fit this file's rows, measure none")
    parser.add_argument("--out", type=file_to_write, help="write the rates as JSON")
    given = parser.parse_args()
    if given.fit:
        about, rows = read(given.fit.read_text())
    else:
        about, rows = measure_all(given.small, given.rows)
    measured: dict[str, list[ProgramTiming]] = {}
    for one in rows:
        measured.setdefault(one.program.shape.arch_type, []).append(one)
    rates = fit(measured, about["workers"], overlaps=about["platform"] != "cpu")
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
            if one.compile and one.memory
        ]
        middle = np.median(np.abs(np.asarray(errors) - 1), axis=0)
        table.add_row(family, *[f"{value:.2f}" for value in middle])
    plain_console().print(table)
    if given.out:
        rows_of = given.fit or given.rows
        command = f"--fit {rows_of}" if rows_of else ""
        about = {"command": f"python experiments/speed/rates.py {command}"} | about
        text = json.dumps(about | {"rates": rates.to_dict()}, indent=1)
        given.out.write_text(text + "\n")


def measure_all(small: bool, rows: Path | None) -> tuple[dict, list[ProgramTiming]]:
    """Of what, and every program's."""
    [device, *_] = jax.devices()
    about = {
        "device": device.device_kind,
        "platform": device.platform,
        "workers": workers_of(device),
        "machine": platform.machine(),
        "jax": jax.__version__,
    }
    sizes, forms = (
        (SIZES, FORMS) if device.platform == "cpu" else (SIZES_GPU, FORMS_GPU)
    )
    lines, found = [about], []
    for family in FAMILIES:
        for program, dimensions in programs_of(
            family, SMALL if small else sizes, forms
        ):
            task = synthetic_task(*dimensions, dtype=compute_dtype())
            one = measure(program, task, device, about["workers"])
            found.append(one)
            lines.append(line_of(one, dimensions))
            shape = f"L{program.shape.num_layers} H{program.shape.hidden_dim}"
            print(
                f"{family} {shape} {program.form} x {program.lanes}: compile "
                f"{one.compile:.1f} s, step {one.step * 1e3:.2f} ms, "
                f"{one.memory / 2**20:.1f} MiB",
                flush=True,
            )
            if rows:
                rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return about, found


def line_of(one: ProgramTiming, dimensions: tuple) -> dict:
    """One program's, as it is kept."""
    figures = {name: getattr(one, name) for name in FIGURES}
    return {"program": one.program.to_dict(), "task": dimensions, **figures}


def read(text: str) -> tuple[dict, list[ProgramTiming]]:
    """The inverse: of what, and every program's."""
    about, *lines = map(json.loads, text.splitlines())
    return about, [
        ProgramTiming(
            program=Program.from_dict(line["program"]),
            settings=synthetic_task(*line["task"]).settings,
            **{name: line[name] for name in FIGURES},
        )
        for line in lines
    ]


if __name__ == "__main__":
    main()
