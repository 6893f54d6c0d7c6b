"""Programs that are compiled and timed, and the rates that fit what was measured."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from scipy.optimize import nnls
from tokenizers import Tokenizer, models

from arch.cost import parameters
from jaxnas.data import Dataset
from jaxnas.population.cost_model import (
    LAUNCHES,
    Rates,
    StepWork,
    compile_work,
    work_of,
)
from jaxnas.population.lanes import Group, Running
from jaxnas.population.program import Program, compile_program
from jaxnas.training.loop import Schedule
from jaxnas.training.scoring import Compression
from jaxnas.training.settings import TrainSettings
from jaxnas.training.task import Task

# Bytes of a layer's values below which its launches take longer.
NARROW = 1e8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramTiming:
    """One program on one device; 0 is what was not measured."""

    program: Program
    settings: TrainSettings
    compile: float  # seconds
    step: float  # seconds of one step of one call, all workers busy
    handling: float  # seconds to draw, pad and take out the members of a call
    memory: int  # bytes


def measure(
    program: Program, task: Task, device: jax.Device, workers: int
) -> ProgramTiming:
    """Compiles a program and times its steps with all workers busy."""
    with _without_cache():
        lone = Compression("fp16", 0.0)
        begin = time.monotonic()
        ready = compile_program(program, task, 64, lone, device)
        seconds = time.monotonic() - begin
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


def fit(
    measured: dict[str, Sequence[ProgramTiming]], workers: int, overlaps: bool = False
) -> Rates:
    """Rates, none below zero, that come closest to what was measured.

    Families share what a step, a product and a parameter cost; launches, values
    and what runs token by token cost each family something more.

    Args:
      measured: of each family.
      workers: trained at once.
      overlaps: see `Rates`.
    """
    step = (_fit_slower if overlaps else _fit)(
        {
            family: [(_amounts(one), one.step) for one in every]
            for family, every in measured.items()
        },
        own=(1, 2, 4),
    )
    compile = _fit(
        {
            family: [
                (compile_work(one.program), one.compile) for one in every if one.compile
            ]
            for family, every in measured.items()
        },
        own=(0, 2),
    )
    memory = _fit(
        {
            family: [(_stored(one), one.memory) for one in every if one.memory]
            for family, every in measured.items()
        },
        own=(1,),
    )
    handling = [
        one.handling / (parameters(one.program.shape) * one.program.lanes)
        for every in measured.values()
        for one in every
        if one.handling
    ]
    return Rates(
        step=step,
        compile=compile,
        memory=memory,
        handling=float(np.median(handling)) if overlaps else 0.0,
        workers=workers,
        overlaps=overlaps,
    )


def _amounts(one: ProgramTiming) -> list[float]:
    """`StepWork` of a call; launches are shared by lanes under `vmap`."""
    work = work_of(one.program, one.program.shape, one.settings)
    lanes = one.program.lanes
    shared = [name in LAUNCHES and one.program.vmapped for name in work._fields]
    return np.multiply(work, np.where(shared, 1, lanes)).tolist()


def _stored(one: ProgramTiming) -> list[float]:
    """Parameters and values of a call."""
    work = work_of(one.program, one.program.shape, one.settings)
    return np.multiply(one.program.lanes, [work.parameters, work.values]).tolist()


def _fit_slower(rows: dict[str, list], own: tuple[int, ...]) -> dict[str, list[float]]:
    """`_fit` where the slower of launches and work counts: each of its own rows."""
    launches = [name in LAUNCHES for name in StepWork._fields]
    rates: dict[str, np.ndarray] = {}
    for _ in range(20):
        parts = []
        for side in (True, False):
            chosen = {
                family: [
                    (np.multiply(amounts, np.equal(launches, side)), seconds)
                    for amounts, seconds in every
                    if _bound_by_launches(rates.get(family), amounts, launches) == side
                ]
                for family, every in rows.items()
            }
            parts.append(_fit_some(chosen, own))
        found = {name: np.add(parts[0][name], parts[1][name]) for name in rows}
        if all(np.array_equal(found[name], rates.get(name)) for name in rows):
            break
        rates = found
    return {name: values.tolist() for name, values in rates.items()}


def _fit_some(rows: dict[str, list], own: tuple[int, ...]) -> dict[str, list[float]]:
    """`_fit`; families without a row get the middle of the others' rates."""
    found = _fit({family: every for family, every in rows.items() if every}, own)
    middle = np.median(list(found.values()), axis=0).tolist()
    return {family: found.get(family, middle) for family in rows}


def _bound_by_launches(
    rates: np.ndarray | None, amounts: Sequence[float], launches: Sequence[bool]
) -> bool:
    """By the rates; before there are any, whatever runs token by token or is narrow."""
    if rates is None:
        values = amounts[StepWork._fields.index("values")]
        return values < NARROW * amounts[1] or amounts[2] > 0
    cost = np.multiply(rates, amounts)
    return cost[launches].sum() >= cost[np.logical_not(launches)].sum()


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
