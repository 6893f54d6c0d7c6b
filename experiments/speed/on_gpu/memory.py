"""Bytes that the planner predicts beside those of XLA's memory analysis."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from measured import synthetic_task
from on_gpu.lanes import shape_of
from on_gpu.report import Report, at_once, print_table

from arch.families import FAMILIES
from jaxnas.population.cost_model import fitted_rates
from jaxnas.population.program import Program, compile_program

# Layers, width, window, batch, vocabulary.
SIZE, LONG = (4, 128, 64, 4, 1024), (4, 256, 512, 8, 2048)
TINY = (1, 32, 16, 2, 64)


def cases_of(small: bool) -> list[tuple]:
    """Family, size, dtype, form, lanes."""
    if small:
        return [("rwkv", TINY, "float32", "exact", 1)]
    cases = [(family, SIZE, "bfloat16", "looped", 1) for family in FAMILIES]
    cases += [(family, LONG, "bfloat16", "looped", 1) for family in FAMILIES]
    cases += [("transformer", SIZE, "float32", "looped", 1)]
    cases += [("transformer", SIZE, "bfloat16", "unrolled", 1)]
    cases += [("transformer", LONG, "bfloat16", "looped", 8)]
    cases += [
        (family, SIZE, "bfloat16", "looped", lanes)
        for family in ("transformer", "mamba")
        for lanes in (8, 32)
    ]
    return cases


def run(report: Report):
    """Programs that train only; nothing runs."""
    device, rates = jax.devices()[0], fitted_rates()
    programs, jobs = {}, {}
    for case in cases_of(report.small):
        family, (layers, width, *dimensions), dtype, form, lanes = case
        window, _, vocab = dimensions
        task = synthetic_task(*dimensions)
        task = dataclasses.replace(task, dtype=np.dtype(jnp.dtype(dtype)))
        shape = shape_of(layers, width, window, vocab, family)
        program = Program(shape=shape, form=form, lanes=lanes, vmapped=lanes > 1)
        programs[case] = (program, task.settings)
        jobs[case] = lambda program=program, task=task: (
            compile_program(program, task, None, None, device).memory
        )
    rows = []
    for case, real in at_once(jobs, report).items():
        family, (layers, width, window, batch, _), dtype, form, lanes = case
        predicted = rates.memory_bytes(*programs[case])
        rows.append(
            {
                "program": f"{family} L{layers} d{width}, {batch} x {window}, {form}",
                "dtype": dtype,
                "lanes": lanes,
                "predicted_mib": predicted / 2**20,
                "real_mib": real / 2**20,
                "ratio": predicted / real if real else None,
            }
        )
    report.keep("rows", rows)
    columns = {"program": "", "dtype": "", "lanes": "d", "predicted_mib": ",.1f"}
    title = "Bytes of a training program: predicted (rates.json), and XLA's analysis"
    print_table(title, rows, columns | {"real_mib": ",.1f", "ratio": ".2f"})
