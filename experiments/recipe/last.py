"""How the winner's last training warms up and decays: bits/byte of each way.

    python experiments/recipe/last.py

A model trains for 400 steps at a constant rate, as in a search's phases, then goes on
from there for 1,800 steps by each of the schedules; seed 0.
"""

import dataclasses

import jax
import numpy as np

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
MODELS = {"rwkv": (3, 96, 1), "transformer": (2, 80, 4)}  # layers, width, heads
# Shares of warm-up and decay, beta2.
WAYS = (
    (0.1, 0.5, 0.95),
    (0.02, 0.5, 0.95),
    (0.02, 0.7, 0.95),
    (0.02, 0.9, 0.95),
    (0.02, 0.9, 0.98),
)


def main() -> None:
    """Prints the table."""
    set_up()
    dataset = prepare("stdlib", VOCABULARY)
    plain = TrainSettings(window=WINDOW, batch=8, learning_rate=6e-3)
    task = Task(dataset=dataset, settings=plain, seed=0, dtype=np.dtype("float32"))
    table = plain_table(f"{STEPS} steps", "model")
    add_numbers(table, "warm-up", "decay", "beta2", "validation", "test")
    for family, (layers, width, heads) in MODELS.items():
        config = ArchitectureConfig(
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
        trunk = _trained(config, task, None, BEFORE, 0.05, 0.2, "dropout")
        for warmup, decay, beta2 in WAYS:
            settings = dataclasses.replace(plain, beta2=beta2)
            other = dataclasses.replace(task, settings=settings)
            params = _trained(config, other, trunk, STEPS, warmup, decay, "finish")
            bits = [_bits(config, task, params, at) for at in ("validation", "test")]
            cells = [f"{share:g}" for share in (warmup, decay, beta2)]
            table.add_row(family, *cells, *(f"{one:.4f}" for one in bits))
    plain_console().print(table)


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


def _bits(config: ArchitectureConfig, task: Task, params: Params, split: str) -> float:
    found = score_windows(config, task, params, task.windows(split, WINDOWS)).metrics()
    assert found is not None
    return found.bits_per_byte


if __name__ == "__main__":
    main()
