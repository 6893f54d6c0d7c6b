"""How far `vmap` fills the device: member-steps a second of one elastic program."""

import dataclasses

import jax
import numpy as np
from measured import synthetic_task
from on_gpu.report import Report, at_once, clock, print_table

from arch import ArchitectureConfig
from arch.padding import common_shape
from jaxnas.population.lanes import Group, Running
from jaxnas.population.program import Program, compile_training
from jaxnas.training.loop import Schedule

LANES = (1, 2, 4, 8, 16, 32)

# Layers, width, window, batch, vocabulary.
SIZES = {"d64": (4, 64, 64, 4, 1024), "d128": (4, 128, 64, 4, 1024)}
LARGE = {"d256": (6, 256, 128, 8, 2048)}
TINY = {"d32": (1, 32, 16, 2, 64)}


def shape_of(layers: int, width: int, window: int, vocab: int, family="transformer"):
    """A shape that holds any member of its width."""
    config = ArchitectureConfig(
        arch_type=family,
        num_layers=layers,
        hidden_dim=width,
        num_heads=4,
        ffn_multiplier=4.0,
        normalization="rmsnorm",
        activation="gelu",
        position_encoding="rope",
        vocab_size=vocab,
        max_seq_length=window,
    )
    return common_shape([config])


def run(report: Report):
    """Size by size; one lane is a program without `vmap`."""
    sizes = TINY if report.small else SIZES | LARGE
    lanes = (1, 2) if report.small else LANES
    dtypes = ("bfloat16",) if report.small else ("float32", "bfloat16")
    device = jax.devices()[0]
    rows: list[dict] = []
    for name, (layers, width, *dimensions) in sizes.items():
        if not report.has_time(name, 10):
            break
        task = synthetic_task(*dimensions)
        window, _, vocab = dimensions
        shape = shape_of(layers, width, window, vocab)
        cases = {
            (dtype, form, number): (
                Program(shape=shape, form=form, lanes=number, vmapped=number > 1),
                dataclasses.replace(task, dtype=np.dtype(jax.numpy.dtype(dtype))),
            )
            for dtype in dtypes
            for form in ("looped", "unrolled")
            for number in lanes
            if form == "looped" or (number in (1, 8) and not report.small)
        }
        jobs = {
            key: lambda case=case: compile_training(*case, device)
            for key, case in cases.items()
        }
        trained = at_once(jobs, report)
        for key, train in trained.items():
            rows.append({"size": name} | timed(key, *cases[key], train, device))
            report.keep("rows", rows)
        gains(rows)
    report.keep("rows", rows)
    columns = {"size": "", "dtype": "", "form": "", "lanes": "d", "step_ms": ".3f"}
    columns |= {"member_steps_per_second": ",.0f", "gain": ".2f", "memory_mib": ",.1f"}
    title = "Members under one vmap, steps of all members a second; gain over one lane"
    print_table(title, rows, columns)


def timed(key, program: Program, task, train, device: jax.Device) -> dict:
    dtype, form, lanes = key
    size = task.settings.steps_per_call
    group = Group(program=program, configs=[program.shape] * lanes)
    schedule = Schedule.over(size, task.settings)
    running = Running(group, task, schedule, device)
    starts = np.zeros((size, task.settings.batch), np.int32)
    call = lambda: running.advance(train, starts)
    step = clock({"": call}, seconds=0.4)[""] / size
    memory = train.memory_analysis()
    return {
        "dtype": dtype,
        "form": form,
        "lanes": lanes,
        "step_ms": 1e3 * step,
        "member_steps_per_second": lanes / step,
        "memory_mib": memory.temp_size_in_bytes / 2**20 if memory else None,
    }


def gains(rows: list[dict]):
    """Beside one lane of the same program."""
    kind = lambda row: (row["size"], row["dtype"], row["form"])
    alone = {kind(row): row for row in rows if row["lanes"] == 1}
    for row in rows:
        if one := alone.get(kind(row)):
            rate = "member_steps_per_second"
            row["gain"] = row[rate] / one[rate]
