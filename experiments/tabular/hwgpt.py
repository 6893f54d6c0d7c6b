"""Strategies on HW-GPT-Bench-S (arXiv:2405.10299): hypervolume over evaluations.

    python experiments/tabular/hwgpt.py --data perplexity_s.npz

Minimised are the perplexity that the benchmark's own network predicts and the
number of parameters. `--pymoo` adds pymoo's NSGA-II, which takes minutes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from search import STRATEGIES, hypervolume, simulate

WIDTHS = (192, 384, 768)
DEPTHS = (10, 11, 12)
RATIOS = (2, 3, 4)
HEADS = (4, 8, 12)
DEEPEST = 12
# Perplexity and parameters, for a hypervolume between 0 and 1.21.
LOW = np.float32([21.4, 23_483_520])
HIGH = np.float32([42.9, 190_594_560])
REFERENCE = np.float32([1.1, 1.1])
BUDGETS = (100, 200, 400, 1000, 2000)
SEEDS = 10


class HWGPT(NamedTuple):
    """Genes: width, depth, 12 feed-forward ratios, 12 heads, bias or none."""

    @property
    def cardinality(self):
        return np.asarray([3, 3, *[3] * 2 * DEEPEST, 2], np.int32)

    def valid(self, genome):
        return jnp.bool_(True)

    def repair(self, genome):
        return genome


def evaluator(path: Path) -> Callable[[jax.Array], jax.Array]:
    """i32[B, 27] -> f32[B, 2], scaled; the network is read from an npz file."""
    with np.load(path) as file:
        layers = [(file[f"fc{n}.weight"], file[f"fc{n}.bias"]) for n in range(1, 6)]

    def perplexity(genome):
        hot = _one_hot(genome)
        for weight, bias in layers[:-1]:
            hot = jax.nn.relu(weight @ hot + bias)
        return (layers[-1][0] @ hot + layers[-1][1])[0]

    def both(genome):
        found = jnp.stack([perplexity(genome), parameters(genome)])
        return (found - LOW) / (HIGH - LOW)

    return jax.vmap(both)


def _one_hot(genome):
    """i32[27] -> f32[80], zeros for the layers beyond the depth."""
    used = jnp.arange(DEEPEST) < jnp.asarray(DEPTHS)[genome[1]]
    layers = jax.nn.one_hot(genome[2:-1].reshape(2, DEEPEST), 3) * used[None, :, None]
    ends = [jax.nn.one_hot(genome[:2], 3).ravel(), jax.nn.one_hot(genome[-1], 2)]
    return jnp.concatenate([ends[0], layers.ravel(), ends[1]])


def parameters(genome: jax.Array) -> jax.Array:
    """i32[27] -> f32[], exact as long as float32 is: to 2**24, then rounded."""
    width, depth = jnp.asarray(WIDTHS)[genome[0]], jnp.asarray(DEPTHS)[genome[1]]
    used = jnp.arange(DEEPEST) < depth
    ratios = (jnp.asarray(RATIOS)[genome[2:14]] * used).sum()
    heads = (jnp.asarray(HEADS)[genome[14:26]] * used).sum()
    bias = 1 - genome[-1]
    # At most 1.9e8, so int32 holds it.
    total = 100510 * width + 4 * depth * width + 3 * width**2 * ratios
    total += 256 * width * heads
    total += bias * (2 * width * ratios + 2 * depth * width + 192 * heads)
    return total.astype(jnp.float32)


STRATEGY_SETTINGS: dict[str, dict] = {
    "random": {},
    "nsga2": {"objectives": 2},
    "aging": {"objectives": 2},
    "local": {"objectives": 2},
}


def volumes(strategy, evaluate, seed: int) -> jax.Array:
    """f32[len(BUDGETS)], the hypervolume after each budget."""
    asked = jax.eval_shape(
        lambda key: strategy.ask(key, strategy.init(key)), jax.random.key(0)
    ).shape[0]
    generations = -(-BUDGETS[-1] // asked)
    _, history = simulate(strategy, jax.random.key(seed), evaluate, generations)
    told = history.objectives.reshape(-1, 2)
    return jnp.stack([hypervolume(told[:budget], REFERENCE) for budget in BUDGETS])


def table(evaluate, names, population: int):
    for name in names:
        settings = {"population": population} | STRATEGY_SETTINGS[name]
        strategy = STRATEGIES[name](HWGPT(), **settings)
        run = jax.jit(lambda seed, one=strategy: volumes(one, evaluate, seed))
        found = np.asarray([run(seed) for seed in range(SEEDS)])
        show(name, found)


def show(name: str, found: np.ndarray):
    """f32[seeds, budgets] as a line."""
    means = "  ".join(f"{mean:.4f}" for mean in found.mean(axis=0))
    print(f"{name:10} {means}   +- {found[:, -1].std():.4f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--strategy", choices=[*STRATEGY_SETTINGS], action="append")
    arguments = parser.parse_args()
    print("evaluations", *BUDGETS)
    names = arguments.strategy or [*STRATEGY_SETTINGS]
    table(evaluator(arguments.data), names, arguments.population)


if __name__ == "__main__":
    main()
