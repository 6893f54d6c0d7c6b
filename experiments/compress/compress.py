"""Rounding, training while rounded, pruning with recovery, distillation: three seeds.

    python experiments/compress/base.py --out DIR
    python experiments/compress/compress.py rounding --models DIR --out FILE.json

Each experiment takes one to three minutes a seed (rounding, qat, pruning, distillation,
and distillation-4, with windows that are seen four times); `--seed N` does one, and
adds it to the file.
"""

import argparse
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
from base import SETTINGS, SMALL, bits, small_models

from arch import Params
from arch.cost import HARDWARE, size_bytes
from jaxnas.export.model_folder import LoadedModel
from jaxnas.pipeline.compress import (
    Compressed,
    CompressLimits,
    prune_once,
    rounded,
    trained_on,
)
from jaxnas.pipeline.corpus_task import shared_task
from jaxnas.pipeline.distil import DistilPlan, read_lesson
from jaxnas.pipeline.winner import last_course
from jaxnas.runtime import set_up
from jaxnas.training.loop import Schedule
from jaxnas.training.settings import FURTHER_SHARE
from jaxnas.training.single import continue_training, starting_state
from jaxnas.training.task import Task

STEPS = 600  # while rounded, or without
RECOVERY = 800  # in all three stages
TAUGHT = 900  # of a student
STUDENT = dataclasses.replace(SMALL, num_layers=2, hidden_dim=32, num_heads=2)

Row = dict[str, float]


def rounding(model: LoadedModel, task: Task, scratch: Path) -> Row:
    """Each rounding of the trained model, with no training."""
    del scratch
    own = Compressed(model.config, model.params)
    row = {"fp16": bits(model.config, task, model.params)}
    for stored in ("int8", "int4"):
        for how in ("plain", "importance", "gptq"):
            found = rounded(own, task, stored, how)
            row[f"{stored} {how}"] = bits(found.config, task, found.params)
    return row


def qat(model: LoadedModel, task: Task, scratch: Path) -> Row:
    """As many more steps with int4 in the forward pass, and without."""
    del scratch
    further = _rate(task, FURTHER_SHARE)
    train = functools.partial(trained_on, model.config, further, model.params, STEPS)
    plain, straight = train(), train("int4")
    row = {"fp16": bits(model.config, task, plain)}
    for how in ("plain", "importance", "gptq"):
        found = rounded(Compressed(model.config, plain), task, "int4", how)
        row[f"int4 {how}"] = bits(found.config, task, found.params)
    found = rounded(Compressed(model.config, straight), task, "int4", "qat")
    row["int4 qat"] = bits(found.config, task, found.params)
    found = rounded(Compressed(model.config, straight), task, "int4", "gptq")
    row["int4 qat, then gptq"] = bits(found.config, task, found.params)
    return row


def pruning(model: LoadedModel, task: Task, scratch: Path) -> Row:
    """30 % of the bytes in three stages, beside as long a training of all."""
    del scratch
    own = _rate(task, FURTHER_SHARE)
    row = {"as it was": bits(model.config, task, model.params)}
    further = trained_on(model.config, own, model.params, RECOVERY)
    row["not pruned, trained as long"] = bits(model.config, task, further)
    before = size_bytes(model.config)
    limits = CompressLimits(
        "fp16", 0.7 * before, "fp16", math.inf, math.inf, HARDWARE["cpu-core"]
    )
    excess, found = 1 / 0.7, Compressed(model.config, model.params)
    for stage, steps in enumerate((RECOVERY // 4, RECOVERY // 4, RECOVERY // 2)):
        found = prune_once(found, task, limits, excess ** (1 - (stage + 1) / 3))
        name = f"stage {stage + 1}"
        row[f"{name}, pruned"] = bits(found.config, task, found.params)
        params = trained_on(found.config, own.repeated(stage), found.params, steps)
        found = Compressed(found.config, params)
        row[f"{name}, recovered"] = bits(found.config, task, found.params)
    row["share of the bytes"] = size_bytes(found.config) / before
    return row


def distillation(model: LoadedModel, task: Task, scratch: Path, epochs: int = 1) -> Row:
    """A student with a teacher, and one that trains on for as long without.

    Seen several times, each window is read by the teacher once.
    """
    plan = DistilPlan(
        teacher="",
        student="",
        data="stdlib",
        fresh=True,
        tokens=None,
        budget=None,
        share=0.5,
        top=16,
        stored=TAUGHT * SETTINGS.batch * SETTINGS.window // epochs,
        window=SETTINGS.window,
        batch=SETTINGS.batch,
        learning_rate=SETTINGS.learning_rate,
        final_windows=1,
        seed=task.seed,
    )
    steps = TAUGHT
    fresh = functools.partial(starting_state, STUDENT)
    read = lambda number, name: read_lesson(scratch / name, plan, model, task, number)
    settings = dataclasses.replace(task.settings, teaching=plan.share)
    course = last_course(task, steps)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable) -> object:
        begin = time.process_time()
        found = work()
        jax.block_until_ready(found)
        seconds[name] = time.process_time() - begin
        return found

    def train(own: Task, starts: object, schedule: Schedule) -> Params:
        begin = fresh(own)
        calls = continue_training(STUDENT, own, begin, starts, "x", schedule)
        *_, (state, _) = calls
        return state.params

    read(20, "warm")  # compiles
    lesson, order = timed("reading", lambda: read(steps, f"teacher-{epochs}"))
    taught = dataclasses.replace(task, settings=settings, lesson=lesson)
    for own, starts in ((taught, order[:20]), (task, course.starts[:20])):
        train(own, starts, course.schedule)  # compiles
    student = timed("with", lambda: train(taught, order, course.schedule))
    plain = timed("without", lambda: train(task, course.starts, course.schedule))
    longer = int(steps * (seconds["reading"] + seconds["with"]) / seconds["without"])
    equal = last_course(task, longer)
    long = train(task, equal.starts, equal.schedule)
    return {
        "teacher": bits(model.config, task, model.params),
        f"with a teacher, {steps} steps": bits(STUDENT, task, student),
        f"without, {steps} steps": bits(STUDENT, task, plain),
        "without, equal time": bits(STUDENT, task, long),
        "steps in that time": longer,
        **{f"CPU s, {name}": one for name, one in seconds.items()},
    }


def _rate(task: Task, share: float) -> Task:
    rate = share * SETTINGS.learning_rate
    settings = dataclasses.replace(task.settings, learning_rate=rate)
    return dataclasses.replace(task, settings=settings)


EXPERIMENTS: dict[str, Callable[[LoadedModel, Task, Path], Row]] = {
    "rounding": rounding,
    "qat": qat,
    "pruning": pruning,
    "distillation": distillation,
    "distillation-4": functools.partial(distillation, epochs=4),
}


def main() -> None:
    """Prints and writes a row a seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, help="this one alone")
    options = parser.parse_args()
    set_up()
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    for seed, model, dataset in small_models(options.models):
        if options.seed not in (None, seed):
            continue
        task = shared_task(dataset, SETTINGS, seed + 100)
        scratch = options.models / "scratch" / str(seed)
        row = EXPERIMENTS[options.name](model, task, scratch)
        known.setdefault(options.name, {})[str(seed)] = row
        print(seed, json.dumps(row, indent=2), flush=True)
        options.out.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
