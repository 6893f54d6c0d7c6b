"""Which learning rates and which optimizer: bits/byte after so many tokens.

    python experiments/recipe/recipe.py --out experiments/recipe

Models of three widths on this Python's library, three seeds each. A rate is given
for hidden matrices at width 64; wider models take 64 / width of it. All other
tensors take `rest` times it at any width; "one rate" gives all tensors the hidden
matrices' own. Muon has hidden matrices, AdamW the rest.
"""

import argparse
import functools
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arch import ArchitectureConfig, build_model
from arch.initial import draw_parameters
from arch.layout import input_axes, layout_of
from jaxnas.data import prepare
from jaxnas.keys import key_of
from jaxnas.runtime import compiler_options, set_up
from jaxnas.storage.files import write_json
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import (
    BASE_WIDTH,
    Schedule,
    batch_starts,
    gather_windows,
    logits_of,
    make_optimizer,
    next_token_losses,
)
from jaxnas.training.scoring import Compression, score
from jaxnas.training.settings import TrainSettings
from jaxnas.training.task import Task

SEEDS = 3
WINDOW, LAYERS, SCORED = 64, 4, 256


class Recipe(NamedTuple):
    """One row of the table."""

    about: str
    family: str = "transformer"
    width: int = 64
    optimizer: str = "adamw"
    rate: float = 0.006  # of hidden matrices at width 64
    rest: float | None = 4.0  # of all else, as a multiple; None for one rate
    batch: int = 8
    tokens: int = 102_400
    beta2: float = 0.95
    decay: float = 0.5


RECIPES = [
    *(
        Recipe("rate by width", width=width, rate=rate)
        for width, rate in itertools.product((32, 64, 128), (0.003, 0.006, 0.012))
    ),
    *(
        Recipe("one rate", width=width, rate=rate, rest=None)
        for width, rate in itertools.product((32, 64, 128), (0.006, 0.012))
    ),
    *(Recipe("rest", rest=rest) for rest in (1.0, 2.0, 8.0)),
    *(Recipe("batch", batch=batch) for batch in (4, 16)),
    *(Recipe("decay", decay=decay) for decay in (0.2, 0.9)),
    Recipe("beta2", beta2=0.98),
    *(
        Recipe("family", family, rate=rate)
        for family in ("rwkv", "mamba", "linear_transformer")
        for rate in (0.003, 0.006, 0.012)
    ),
    *(
        Recipe("muon", family, optimizer="muon", rate=rate)
        for family in ("transformer", "rwkv")
        for rate in (0.01, 0.02, 0.04)
    ),
]


def main() -> None:
    """Prints a line a recipe, writes result.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    set_up()
    dataset = prepare("stdlib", 1024)
    rows = []
    for recipe in RECIPES:
        settings = TrainSettings(
            window=WINDOW,
            batch=recipe.batch,
            learning_rate=recipe.rate,
            beta2=recipe.beta2,
            decay_share=recipe.decay,
        )
        found = []
        for seed in range(SEEDS):
            task = Task(
                dataset=dataset, settings=settings, seed=seed, dtype=np.dtype("float32")
            )
            found.append(_trained(recipe, task))
        bits, seconds = np.asarray(found).T
        row = recipe._asdict() | {
            "bits_per_byte": round(float(bits.mean()), 4),
            "deviation": round(float(bits.std(ddof=1)), 4),
            "cpu_seconds": round(float(seconds[1:].mean()), 1),  # the first compiles
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
        write_json(options.out / "result.json", {"rows": rows})


def _config(recipe: Recipe, vocabulary: int) -> ArchitectureConfig:
    return ArchitectureConfig(
        arch_type=recipe.family,
        num_layers=LAYERS,
        hidden_dim=recipe.width,
        num_heads=recipe.width // 16,
        ffn_multiplier=3.0,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        vocab_size=vocabulary,
        max_seq_length=WINDOW,
    ).canonical()


def _trained(recipe: Recipe, task: Task) -> tuple[float, float]:
    """Bits/byte on the validation split, and CPU-seconds of the training."""
    config = _config(recipe, task.dataset.vocab_size)
    length = PhaseLength(samples=recipe.tokens // WINDOW, epochs=1)
    starts = batch_starts(task.seed, len(task.dataset.train), task.settings, length)
    params = draw_parameters(build_model(config), key_of(task.seed, "parameters"))
    train = _training(recipe, config, task.settings, len(starts))
    begin = time.process_time()
    trained = jax.block_until_ready(train(params, task.train_tokens, starts))
    seconds = time.process_time() - begin
    windows = task.windows("validation", SCORED)
    [metrics] = score(config, task, trained, windows, [Compression("fp16", 0.0)])
    return (metrics.bits_per_byte if metrics else float("nan")), seconds


@functools.lru_cache(maxsize=1)
def _training(
    recipe: Recipe, config: ArchitectureConfig, settings: TrainSettings, steps: int
) -> Callable:
    """(params, tokens, starts) -> params, compiled once for all seeds."""
    model, schedule = build_model(config), Schedule.over(steps, settings)
    optimizer = make_optimizer(settings) if recipe.optimizer == "adamw" else _muon()

    def factor(path: tuple) -> float:
        hidden = BASE_WIDTH / config.hidden_dim
        if recipe.optimizer == "muon":
            return 1.0 if _is_hidden(path) else 0.024 / recipe.rate
        if recipe.rest is None:
            return hidden
        return hidden if _is_hidden(path) else recipe.rest

    def loss_of(params: dict, windows: jax.Array) -> jax.Array:
        logits = logits_of(model, params, windows[:, :-1])
        return next_token_losses(logits, windows[:, 1:]).mean()

    def train(params: dict, tokens: jax.Array, starts: jax.Array) -> dict:
        def step(carry: tuple, row: jax.Array) -> tuple:
            params, moments, number = carry
            windows = gather_windows(tokens, row, settings.window)
            grads = jax.grad(loss_of)(params, windows)
            updates, moments = optimizer.update(grads, moments, params)
            rate = schedule.rate(number)
            params = jax.tree_util.tree_map_with_path(
                lambda path, p, u: p - rate * factor(path) * u, params, updates
            )
            return (params, moments, number + 1), None

        begin = (params, optimizer.init(params), jnp.int32(0))
        (params, _, _), _ = jax.lax.scan(step, begin, starts)
        return params

    return jax.jit(train, compiler_options=compiler_options(jax.default_backend()))


def _is_hidden(path: tuple) -> bool:
    layout = layout_of(path)
    return layout.matrix and layout.module not in ("embed", "head")


def _muon() -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for hidden matrices, AdamW for the rest."""

    def axes(params: dict) -> dict:
        def of(path: tuple, leaf: jax.Array) -> object:
            if not _is_hidden(path):
                return None
            inputs = input_axes(layout_of(path))
            outputs = tuple(a for a in range(1, leaf.ndim) if a not in inputs)
            return optax.contrib.MuonDimensionNumbers(inputs, outputs)

        return jax.tree_util.tree_map_with_path(of, params)

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.contrib.muon(
            -1.0,
            weight_decay=0.1,
            adam_b2=0.95,
            adam_weight_decay=0.1,
            muon_weight_dimension_numbers=axes,
        ),
    )


if __name__ == "__main__":
    main()
