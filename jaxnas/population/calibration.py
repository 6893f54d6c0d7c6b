"""How fast an accelerator compiles and trains: measured once, and kept.

Three small programs are enough, for how families and forms compare is known
(see `jaxnas.population.cost_model`): how much slower or faster compilations, matrix
products and all the rest are, and whether members under `vmap` beat members one
after the other. Kept by device, cores and version of jax; a plan depends on it,
so that it is never measured again by itself.
"""

import contextlib
import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from scipy.optimize import nnls
from tokenizers import Tokenizer, models

from arch import ArchitectureConfig
from arch.cost import parameters
from arch.padding import common_shape
from jaxnas.data import Dataset
from jaxnas.population.cost_model import (
    FITTED,
    Rates,
    compile_work,
    fitted_rates,
    work_of,
)
from jaxnas.population.lanes import Group, Running
from jaxnas.population.program import (
    Program,
    compile_program,
    compile_scoring,
    compile_training,
)
from jaxnas.runtime import compute_dtype, cores, processor
from jaxnas.storage.cache import cache_dir, keep, read_kept
from jaxnas.storage.jsonl import Json
from jaxnas.training.loop import Schedule
from jaxnas.training.scoring import Compression
from jaxnas.training.settings import TrainSettings
from jaxnas.training.task import Task

VMAP_LANES = 8  # members that try `vmap`
VMAP_GAIN = 1.2  # by how much it must be faster


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramTiming:
    """One program on one device."""

    program: Program
    settings: TrainSettings
    compile: float  # seconds
    step: float  # seconds of one step of one call, all workers busy
    handling: float  # seconds to draw, pad and take out the members of a call
    memory: int  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the planner knows of a device."""

    rates: Rates
    vmapped: bool  # whether members run faster at once
    a_step: float  # seconds of the wide program's, for comparing devices

    def to_dict(self) -> Json:
        """As JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Json) -> "Calibration":
        """The inverse of `to_dict`."""
        return cls(**values | {"rates": Rates(**values["rates"])})


def assumed(workers: int) -> Calibration:
    """Of a CPU: plans depend on ratios, which hold from one to the next.

    Measured while others keep the machine busy, they would not.
    """
    rates = dataclasses.replace(fitted_rates(), workers=workers)
    return Calibration(rates=rates, vmapped=False, a_step=1.0)


def calibration_of(
    device: jax.Device, workers: int, say: Callable[[str], None] = lambda text: None
) -> Calibration:
    """The device's calibration: read, or measured and kept.

    Args:
      device: to train on.
      workers: members that it trains at once.
      say: told, in a line, that it is being measured.
    """
    path = _path(device, workers)
    if (kept := read_kept(path, Calibration.from_dict)) is not None:
        return kept
    say(f"measuring how fast {device.device_kind} compiles and trains, once")
    found = calibrate(device, workers)
    keep(path, found.to_dict())
    return found


def calibrate(device: jax.Device, workers: int) -> Calibration:
    """Measures the device with a small, a wide and a vmapped program."""
    small, wide = _program(width=64), _program(width=256)
    at_once = dataclasses.replace(small, lanes=VMAP_LANES, vmapped=True)
    task = synthetic_task(window=32, batch=4, vocabulary=512, dtype=compute_dtype())
    with _without_cache(), ThreadPoolExecutor(2) as pool:
        # What is traced first in a process takes longer: those that time nothing.
        others = [
            pool.submit(compile_training, program, task, device)
            for program in (wide, at_once)
        ]
        wide_train, at_once_train = [one.result() for one in others]
        lone = Compression("fp16", 0.0)
        training = pool.submit(_clocked, compile_training, small, task, device)
        scoring = pool.submit(_clocked, compile_scoring, small, task, 64, lone, device)
        compiling = training.result()[0] + scoring.result()[0]
    compiled = (training.result()[1], wide_train, at_once_train)
    measured = [
        _timed(program, task, device, workers, compiling, train)
        for program, train in zip((small, wide, at_once), compiled, strict=True)
    ]
    rates = fitted_rates()
    rest, products = _two_factors(measured[:2], rates)
    launches = rest
    vmapped = measured[2].step / VMAP_LANES * VMAP_GAIN < measured[0].step
    if vmapped:  # what a call costs however many lanes it has, and what a lane does
        lane = max(0.0, measured[2].step - measured[0].step) / (VMAP_LANES - 1)
        launch = max(0.0, measured[0].step - lane)
        launches = launch / rates.launch_seconds(small, task.settings)
        products = rest = lane / (
            rates.step_seconds(small, small.shape, task.settings)
            - rates.launch_seconds(small, task.settings)
        )
    return Calibration(
        rates=rates.scaled(
            launches=launches,
            products=products,
            rest=rest,
            compile=compiling / rates.compile_seconds(small),
            handling=measured[1].handling / parameters(wide.shape),
            workers=workers,
        ),
        vmapped=bool(vmapped),
        a_step=measured[1].step,
    )


def measure(
    program: Program, task: Task, device: jax.Device, workers: int
) -> ProgramTiming:
    """Compiles a program and times its steps with all workers busy."""
    with _without_cache():
        lone = Compression("fp16", 0.0)
        seconds, ready = _clocked(compile_program, program, task, 64, lone, device)
    measured = _timed(program, task, device, workers, seconds, ready.train)
    return dataclasses.replace(measured, memory=ready.memory)


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """What is found in the cache says nothing about compiling."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # whether there is one is decided once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _clocked(function: Callable, *arguments: Any) -> tuple[float, Any]:
    begin = time.monotonic()
    done = function(*arguments)
    return time.monotonic() - begin, done


def _timed(
    program: Program,
    task: Task,
    device: jax.Device,
    workers: int,
    seconds: float,
    train: jax.stages.Compiled,
) -> ProgramTiming:
    size = task.settings.steps_per_call
    starts = np.zeros((size, task.settings.batch), np.int32)
    config = program.shape
    group = Group(program=program, configs=[config] * program.lanes)
    taken = [float("inf")] * workers
    handling = [0.0] * workers

    def work(at: int) -> None:
        begin = time.monotonic()
        schedule = Schedule.over(len(starts), task.settings)
        running = Running(group, task, schedule, device)
        running.states()
        handling[at] = time.monotonic() - begin
        for _ in range(4):
            begin = time.monotonic()
            running.advance(train, starts)
            taken[at] = min(taken[at], time.monotonic() - begin)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ProgramTiming(
        program=program,
        settings=task.settings,
        compile=seconds,
        step=float(np.mean(taken)) / size,
        handling=float(np.mean(handling)),
        memory=0,
    )


def fit(measured: dict[str, Sequence[ProgramTiming]], workers: int) -> Rates:
    """Rates, none below zero, that come closest to what was measured.

    Families share what a step, a product and a parameter cost; launches, values
    and what runs token by token cost each family something more.
    """
    step = _fit(
        {
            family: [
                (work_of(one.program, one.program.shape, one.settings), one.step)
                for one in every
            ]
            for family, every in measured.items()
        },
        own=(1, 2, 4),
    )
    compile = _fit(
        {
            family: [(compile_work(one.program), one.compile) for one in every]
            for family, every in measured.items()
        },
        own=(0, 2),
    )
    memory = {}
    for family, every in measured.items():
        works = [work_of(m.program, m.program.shape, m.settings) for m in every]
        counts = np.asarray([[work.parameters, work.values] for work in works])
        amounts = np.asarray([one.memory for one in every], float)
        memory[family] = nnls(counts / amounts[:, None], np.ones(len(every)))[
            0
        ].tolist()
    return Rates(step=step, compile=compile, memory=memory, workers=workers)


def _fit(rows: dict[str, list], own: tuple[int, ...]) -> dict[str, list[float]]:
    """Non-negative least squares of the relative error; `own` rates may differ."""
    families = list(rows)
    table, wanted = [], []
    for place, family in enumerate(families):
        for work, seconds in rows[family]:
            extra = np.zeros((len(families), len(own)))
            extra[place] = [work[at] for at in own]
            table.append(np.concatenate([work, extra.ravel()]) / seconds)
            wanted.append(1.0)
    found, _ = nnls(np.asarray(table), np.asarray(wanted), maxiter=10_000)
    shared = found[: len(found) - len(families) * len(own)]
    extras = found[len(shared) :].reshape(len(families), len(own))
    rates = {}
    for place, family in enumerate(families):
        total = shared.copy()
        total[list(own)] += extras[place]
        rates[family] = total.tolist()
    return rates


def _two_factors(measured: list[ProgramTiming], rates: Rates) -> tuple[float, float]:
    """How many times as long matrix products take, and all the rest."""
    rows = []
    for one in measured:
        work = work_of(one.program, one.program.shape, one.settings)
        cost = np.multiply(rates.step[one.program.shape.arch_type], work)
        products = cost[work._fields.index("flops")]
        rows.append([(cost.sum() - products) / one.step, products / one.step])
    found = nnls(np.asarray(rows), np.ones(len(rows)))[0]
    if found.min() > 0.2 * found.max():
        return float(found[0]), float(found[1])
    both = 1 / float(np.mean([sum(row) for row in rows]))  # too noisy to part them
    return both, both


def synthetic_task(
    window: int,
    batch: int,
    vocabulary: int,
    dtype: jax.typing.DTypeLike = "float32",
) -> Task:
    """Random tokens, to measure speed with."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocabulary, 4096).astype(np.uint16)
    dataset = Dataset(
        spec="synthetic",
        corpus_hash="",
        train=tokens,
        validation=tokens,
        test=tokens,
        token_bytes=np.ones(vocabulary, np.int32),
        tokenizer=Tokenizer(models.BPE()),
        vocab_size=vocabulary,
        statistics={},
    )
    settings = TrainSettings(window=window, batch=batch, learning_rate=1e-3)
    return Task(dataset=dataset, settings=settings, seed=0, dtype=jnp.dtype(dtype))


def _program(width: int) -> Program:
    config = ArchitectureConfig(
        arch_type="transformer",
        num_layers=2,
        hidden_dim=width,
        num_heads=4,
        ffn_multiplier=4.0,
        normalization="rmsnorm",
        activation="gelu",
        position_encoding="rope",
        vocab_size=512,
        max_seq_length=32,
    )
    return Program(shape=common_shape([config]), form="looped")


def _path(device: jax.Device, workers: int) -> Path:
    fitted = hashlib.sha256(FITTED.read_bytes()).hexdigest()
    about = (
        f"{device.device_kind} {workers} {cores()} {processor()} "
        f"{jax.__version__} {compute_dtype()} {fitted}"
    )
    name = hashlib.sha256(about.encode()).hexdigest()[:12]
    return cache_dir() / f"calibration-{device.platform}-{name}.json"
