"""Handwritten digits as sequences of rows: a search over all six families.

    pip install -e ".[mnist]"
    python experiments/mnist/digits.py --population 8 --generations 2
    python experiments/mnist/digits.py --data FOLDER --population 50 --generations 10

Each row of an image is a token; an `arch.classifier.SequenceClassifier` reads them
from the top. NSGA-II minimises validation error and parameters; the most accurate on
validation is trained again, on training and validation images together, and tested
once, beside logistic regression and a small convolution network that are trained on
the same images. The digits are scikit-learn's 1,797 of 8 x 8; FOLDER holds MNIST's
four IDX files, gzipped or not.
"""

import argparse
import dataclasses
import functools
import gzip
import json
import time
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from page import page_of

from arch import ArchitectureConfig, build_model
from arch.classifier import SequenceClassifier
from arch.families import FAMILIES
from arch.initial import draw_parameters
from arch.model import Params
from arch.padding import Shape, common_shape, pad, shape_key
from arch.space import Space
from jaxnas.commands.options import file_to_write
from jaxnas.errors import UsageError
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.report.words import describe
from jaxnas.training.members import traits_array
from search import nsga2
from search.pareto.exact_front import exact_front

CLASSES, BATCH, RATE = 10, 64, 3e-3
GENES = {
    "arch_type": FAMILIES,
    "num_layers": (1, 2, 3),
    "hidden_dim": (32, 64, 96),
    "head_dim": (16, 32),
    "ffn_multiplier": (1.0, 2.0, 3.0),
    "normalization": ("layernorm", "rmsnorm"),
    "activation": ("gelu", "swiglu"),
    "position_encoding": ("absolute", "rope", "alibi"),
}
NUMBERS = {"population": 50, "generations": 10, "steps": 600, "final-steps": 600}
LANGUAGE = ("embed", "head")  # a language model's own ends
SPACE = Space("digits", tuple(GENES.values()), tuple(GENES))


class Images(NamedTuple):
    """Rows of pixels in [0, 1], f32[N, T, T], and their digits, i32[N]."""

    rows: np.ndarray
    digits: np.ndarray

    def take(self, which: np.ndarray) -> "Images":
        """Those of these numbers."""
        return Images(self.rows[which], self.digits[which])


class Split(NamedTuple):
    """Three parts; the test part is looked at once."""

    train: Images
    validation: Images
    test: Images


class Found(NamedTuple):
    """A candidate: what it tells right of validation, its parameters, its seconds."""

    id: int
    generation: int
    config: ArchitectureConfig
    accuracy: float
    parameters: int
    seconds: float


def sklearn_digits(seed: int) -> Split:
    """1,797 images of 8 x 8 (Alpaydin & Kaynak 1998): 60, 20 and 20 % of them."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError(
            "the digits need scikit-learn: pip install -e '.[mnist]'"
        ) from None
    found = load_digits()
    every = Images(
        (found.images / 16).astype(np.float32), found.target.astype(np.int32)
    )
    order = np.random.default_rng(seed).permutation(len(every.digits))
    train, validation, test = np.split(order, [1077, 1437])
    return Split(every.take(train), every.take(validation), every.take(test))


def mnist(folder: Path, seed: int) -> Split:
    """MNIST's IDX files (LeCun et al. 1998); the last 10,000 to train validate."""
    parts = [
        Images(
            _idx(folder, f"{name}-images-idx3-ubyte").astype(np.float32) / 255,
            _idx(folder, f"{name}-labels-idx1-ubyte").astype(np.int32),
        )
        for name in ("train", "t10k")
    ]
    order = np.random.default_rng(seed).permutation(len(parts[0].digits))
    return Split(parts[0].take(order[:-10000]), parts[0].take(order[-10000:]), parts[1])


def _idx(folder: Path, name: str) -> np.ndarray:
    path = next(
        (one for one in (folder / name, folder / f"{name}.gz") if one.exists()), None
    )
    if path is None:
        raise UsageError(f"{folder} has no {name}, nor {name}.gz")
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


class Convolutions(nn.Module):
    """Two convolutions and a hidden layer: what one would try first."""

    @nn.compact
    def __call__(self, rows: jax.Array, dropout_key: None = None) -> jax.Array:
        """f32[B, T, T] -> f32[B, 10]."""
        x = rows[..., None]
        for channels in (16, 32):
            x = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        return nn.Dense(CLASSES)(x)


class Linear(nn.Module):
    """Logistic regression of the pixels."""

    @nn.compact
    def __call__(self, rows: jax.Array, dropout_key: None = None) -> jax.Array:
        """f32[B, T, T] -> f32[B, 10]."""
        return nn.Dense(CLASSES)(rows.reshape(rows.shape[0], -1))


def trained(
    model: nn.Module, params: Params, images: Images, steps: int, key: jax.Array, *more
) -> Params:
    """Parameters after so many steps of AdamW, the rate falling like a cosine.

    Args:
      model: called as (rows, None, *more).
      params: to begin with.
      images: arrays; each step draws 64 of them.
      steps: of training.
      key: PRNG key, consumed.
      more: what else the model takes.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 10 + 1, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05)
    )

    def loss_of(params, batch):
        logits = model.apply({"params": params}, images.rows[batch], None, *more)
        entropy = optax.softmax_cross_entropy_with_integer_labels
        return entropy(logits, images.digits[batch]).mean()

    def step(number, carry):
        params, state = carry
        drawn = jax.random.fold_in(key, number)
        batch = jax.random.randint(drawn, (BATCH,), 0, len(images.digits))
        updates, state = optimizer.update(
            jax.grad(loss_of)(params, batch), state, params
        )
        return optax.apply_updates(params, updates), state

    start = params, optimizer.init(params)
    return jax.lax.fori_loop(0, steps, step, start)[0]


@functools.partial(jax.jit, static_argnames=("model", "steps"))
def learned(
    model: nn.Module,
    params: Params,
    train: Images,
    unseen: Images,
    steps: int,
    key: jax.Array,
    *more,
) -> jax.Array:
    """The share of unseen digits that is told right after a training."""
    params = trained(model, params, train, steps, key, *more)
    told = [
        model.apply({"params": params}, rows, None, *more).argmax(axis=-1)
        for rows in jnp.array_split(unseen.rows, max(1, len(unseen.digits) // 1000))
    ]
    return (jnp.concatenate(told) == unseen.digits).mean()


@functools.cache
def shapes(length: int) -> dict[tuple, Shape]:
    """One shape for all models of a family and a width: each is compiled once."""
    grids = np.meshgrid(*(range(len(values)) for values in GENES.values()))
    groups: dict[tuple, set[ArchitectureConfig]] = {}
    genomes = np.stack(grids, axis=-1).reshape(-1, len(GENES))
    for genome in genomes[np.asarray(jax.vmap(SPACE.valid)(genomes))]:
        config = decoded(genome, length)
        groups.setdefault(group_of(config), set()).add(config)
    return {
        name: common_shape(sorted(configs, key=str)) for name, configs in groups.items()
    }


def group_of(config: ArchitectureConfig) -> tuple:
    """Equal for models that train in one program."""
    return shape_key(config), config.hidden_dim


def first_parameters(
    config: ArchitectureConfig, shape: Shape, features: int, key: jax.Array
) -> tuple[Params, int]:
    """A member's initial parameters, padded into the shape, and how many they are."""
    language = draw_parameters(build_model(config), key)
    blocks = {name: language[name] for name in language if name not in LANGUAGE}
    wide = pad(language, config, shape)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    ends = {}
    for name, inputs, outputs, scale in (
        ("enter", features, config.hidden_dim, features**-0.5),
        ("classes", config.hidden_dim, CLASSES, 0.02),
    ):
        kernel = scale * rng.standard_normal((inputs, outputs), np.float32)
        ends[name] = {
            "kernel": kernel.astype(np.float32),
            "bias": np.zeros(outputs, np.float32),
        }
    count = sum(leaf.size for leaf in jax.tree.leaves((blocks, ends)))
    return {name: wide[name] for name in blocks} | ends, count


def decoded(genome: np.ndarray, length: int) -> ArchitectureConfig:
    """The config of a genome for sequences of so many rows."""
    fields = {"vocab_size": CLASSES, "max_seq_length": length}
    return dataclasses.replace(SPACE.decode(genome), **fields).canonical()


def search(split: Split, given: argparse.Namespace, say) -> list[Found]:
    """Every distinct candidate, in the order of the search."""
    strategy = nsga2(
        SPACE,
        objectives=2,
        population=given.population,
        ordered=np.asarray(
            [not isinstance(values[0], str) for values in GENES.values()]
        ),
        stratum=0,
    )
    key = jax.random.key(given.seed)
    state = strategy.init(jax.random.fold_in(key, 0))
    known: dict[ArchitectureConfig, Found] = {}
    end = time.monotonic() + 60 * given.minutes
    for generation in range(given.generations):
        if time.monotonic() > end:
            break
        genomes = strategy.ask(jax.random.fold_in(key, generation + 1), state)
        rows = []
        for genome in np.asarray(genomes):
            config = decoded(genome, split.train.rows.shape[1])
            if config not in known:
                place = len(known), generation + 1
                known[config] = evaluate(*place, config, split, given)
                say(known[config])
            found = known[config]
            rows.append((1 - found.accuracy, found.parameters / 1e6))
        ids = jnp.arange(len(rows)) + generation * given.population
        every = jnp.ones(len(rows), bool)
        state = strategy.tell(state, ids, genomes, jnp.asarray(rows), every)
    return list(known.values())


def evaluate(
    number: int,
    generation: int,
    config: ArchitectureConfig,
    split: Split,
    given: argparse.Namespace,
) -> Found:
    """Trains one candidate and tells its validation digits."""
    began = time.monotonic()
    right, count = classified(
        config, split.train, split.validation, given.steps, given.seed
    )
    seconds = time.monotonic() - began
    return Found(number, generation, config, right, count, seconds)


def classified(
    config: ArchitectureConfig, train: Images, unseen: Images, steps: int, seed: int
) -> tuple[float, int]:
    """What a config learns of unseen digits, and its parameters."""
    _, length, features = train.rows.shape
    shape = shapes(length)[group_of(config)]
    for_params, for_steps = jax.random.split(jax.random.key(seed))
    params, count = first_parameters(config, shape, features, for_params)
    model, traits = SequenceClassifier(shape, CLASSES), traits_array(config)
    right = learned(model, params, train, unseen, steps, for_steps, traits)
    return float(right), count


def tested(config: ArchitectureConfig, split: Split, given: argparse.Namespace) -> dict:
    """Trained on all but the test images, and tested, beside two that are simple."""
    both = Images(*(np.concatenate(parts) for parts in zip(*split[:2], strict=True)))
    seed = given.seed + 1
    right, count = classified(config, both, split.test, given.final_steps, seed)
    results = {"winner": {"parameters": count, "test": right}}
    for name, model in (
        ("convolutions", Convolutions()),
        ("logistic regression", Linear()),
    ):
        for_params, for_steps = jax.random.split(jax.random.key(seed))
        params = model.init(for_params, both.rows[:1])["params"]
        right = float(
            learned(model, params, both, split.test, given.final_steps, for_steps)
        )
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        results[name] = {"parameters": count, "test": right}
    return results


def as_json(about: dict, found: list[Found]) -> str:
    """What was found, a line a candidate."""
    rows = [
        json.dumps(one._asdict() | {"config": one.config.to_dict()}) for one in found
    ]
    head = json.dumps(about | {"candidates": []}, indent=1)
    return head.replace("[]", "[\n  " + ",\n  ".join(rows) + "\n ]") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with MNIST's IDX files")
    for name, value in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"[{value}]")
    parser.add_argument("--seed", type=int, default=0, help="[0]")
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="no generation begins later [none]",
    )
    parser.add_argument(
        "--out", type=file_to_write, help="write what was found as JSON"
    )
    parser.add_argument(
        "--page", type=file_to_write, help="write it as a page that opens anywhere"
    )
    given = parser.parse_args()
    began, console = time.monotonic(), plain_console()
    split = mnist(given.data, given.seed) if given.data else sklearn_digits(given.seed)
    console.print(
        f"{[len(part.digits) for part in split]} digits to train, validate and test; "
        f"{SPACE.distinct_count:,} distinct models"
    )

    def say(one: Found) -> None:
        console.print(
            f"{one.generation:>3} {one.id:>4}  {one.accuracy:.4f}  "
            f"{one.parameters:>8,}  {one.seconds:>5.1f} s  {describe(one.config)}",
            soft_wrap=True,
        )

    found = search(split, given, say)
    best = max(found, key=lambda one: (one.accuracy, -one.parameters))
    results = tested(best.config, split, given)
    front = exact_front(
        np.asarray([(1 - one.accuracy, one.parameters) for one in found])
    )
    table = plain_table("Front of validation accuracy and parameters", "model")
    add_numbers(table, "parameters", "accuracy")
    for one in sorted(
        (found[place] for place in front), key=lambda one: one.parameters
    ):
        table.add_row(
            describe(one.config), f"{one.parameters:,}", f"{one.accuracy:.4f}"
        )
    console.print(table)
    table = plain_table(
        f"Test digits, once; the winner is {describe(best.config)}", "model"
    )
    add_numbers(table, "parameters", "accuracy")
    for name, row in results.items():
        table.add_row(name, f"{row['parameters']:,}", f"{row['test']:.4f}")
    console.print(table)
    seconds = time.monotonic() - began
    console.print(f"{len(found)} models in {seconds:.0f} s")
    about = {"winner": best.id, "seconds": round(seconds, 1), "tested": results}
    written = as_json(about, found)
    if given.out:
        given.out.write_text(written)
    if given.page:
        given.page.write_text(page_of(json.loads(written)))


if __name__ == "__main__":
    main()
