"""How trainings warm up, decay and forget: bits/byte of each way.

    python experiments/recipe/last.py

A model trains for 200 steps, as in a search's first phase, with each beta2. Then one
trains for 400 steps, as in both of its phases, and goes on from there for 1,800 steps
by each of the schedules; seed 0.
"""

import dataclasses

import jax
import numpy as np
from rich.table import Table

from arch import ArchitectureConfig, Params
from jaxnas.data import prepare
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.runtime import set_up
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import Schedule, batch_starts
from jaxnas.training.scoring import score_windows
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import continue_training, starting_state
from jaxnas.training.task import Task

VOCABULARY, WINDOW, WINDOWS, BEFORE, STEPS = 1024, 64, 512, 400, 1800
PHASE, BETAS = 200, (0.95, 0.98, 0.99, 0.999)
# Layers, width, heads.
MODELS = {"rwkv": (3, 96, 1), "mamba": (4, 96, 1), "transformer": (2, 80, 4)}
# Shares of warm-up and decay, beta2.
WAYS = (
    (0.1, 0.5, 0.95),
    (0.02, 0.5, 0.95),
    (0.02, 0.7, 0.95),
    (0.02, 0.9, 0.95),
    (0.02, 0.9, 0.98),
    (0.02, 0.9, 0.99),
    (0.02, 0.9, 0.999),
)


def main() -> None:
    """Prints the tables."""
    set_up()
    dataset = prepare("stdlib", VOCABULARY)
    settings = TrainSettings(window=WINDOW, batch=8, learning_rate=6e-3)
    task = Task(dataset=dataset, settings=settings, seed=0, dtype=np.dtype("float32"))
    models = {family: _config(family, *sizes) for family, sizes in MODELS.items()}
    plain_console().print(_first_phases(models, task), _last_trainings(models, task))


def _first_phases(models: dict[str, ArchitectureConfig], task: Task) -> Table:
    table = plain_table(f"{PHASE} steps from untrained weights", "model")
    add_numbers(table, "beta2", "validation", "test")
    for family, config in models.items():
        for beta2 in BETAS:
            other = _with(task, beta2)
            params = _trained(config, other, None, PHASE, 0.1, 0.2, "dropout")
            table.add_row(family, f"{beta2:g}", *_bits(config, task, params))
    return table


def _last_trainings(models: dict[str, ArchitectureConfig], task: Task) -> Table:
    table = plain_table(f"{STEPS} steps", "model")
    add_numbers(table, "warm-up", "decay", "beta2", "validation", "test")
    for family, config in models.items():
        trunk = _trained(config, task, None, BEFORE, 0.05, 0.2, "dropout")
        for warmup, decay, beta2 in WAYS:
            other = _with(task, beta2)
            params = _trained(config, other, trunk, STEPS, warmup, decay, "finish")
            cells = [f"{share:g}" for share in (warmup, decay, beta2)]
            table.add_row(family, *cells, *_bits(config, task, params))
    return table


def _config(family: str, layers: int, width: int, heads: int) -> ArchitectureConfig:
    return ArchitectureConfig(
        arch_type=family,
        num_layers=layers,
        hidden_dim=width,
        num_heads=heads,
        ffn_multiplier=3.0,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        vocab_size=VOCABULARY,
        max_seq_length=WINDOW,
    ).canonical()


def _with(task: Task, beta2: float) -> Task:
    settings = dataclasses.replace(task.settings, beta2=beta2)
    return dataclasses.replace(task, settings=settings)


def _trained(
    config: ArchitectureConfig,
    task: Task,
    params: Params | None,
    steps: int,
    warmup: float,
    decay: float,
    purpose: str,
) -> Params:
    settings, tokens = task.settings, len(task.dataset.train)
    length = PhaseLength(samples=steps * settings.batch, epochs=1)
    starts = batch_starts(task.seed, tokens, settings, length, purpose)
    schedule = Schedule(
        peak=settings.learning_rate,
        warmup=max(1.0, warmup * steps),
        decay=decay * steps,
        total=float(steps),
    )
    state = starting_state(config, task, params)
    course = starts, purpose, schedule
    *_, (state, _) = continue_training(config, task, state, *course)
    return jax.tree.map(np.asarray, state.params)


def _bits(config: ArchitectureConfig, task: Task, params: Params) -> list[str]:
    cells = []
    for split in ("validation", "test"):
        windows = task.windows(split, WINDOWS)
        found = score_windows(config, task, params, windows).metrics()
        assert found is not None
        cells.append(f"{found.bits_per_byte:.4f}")
    return cells


if __name__ == "__main__":
    main()
