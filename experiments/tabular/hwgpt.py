"""Strategies on HW-GPT-Bench-S (arXiv:2405.10299): hypervolume over evaluations.

    python experiments/tabular/hwgpt.py --data perplexity_s.npz

Minimised are the perplexity that the benchmark's own network predicts and the
number of parameters. The peers come with the extra `bench`.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from hwgpt_models import HWGPT, REFERENCE, canonical, evaluator, scaled_parameters
from peers import optuna_sampler, pymoo_nsga2

from search import STRATEGIES, hypervolume, simulate

matplotlib.use("Agg")
from matplotlib import pyplot  # after the choice of a backend

BUDGETS = (100, 200, 400, 1000, 2000)
BATCH = 20
SETTINGS: dict[str, dict] = {
    "random": {},
    "genetic": {"scalarize": lambda objectives: objectives.sum(axis=1)},
    "aging": {"objectives": 2},
    "local": {"objectives": 2},
    "nsga2": {"objectives": 2},
    "predictor": {
        "objectives": 2,
        "ordered": np.ones(27, bool),
        "cheap": scaled_parameters,
        "cheap_columns": (1,),
        "canonical": canonical,
        "capacity": 1024,
    },
}
PEERS = ("pymoo NSGA-II of 20", "pymoo NSGA-II of 40", "Optuna NSGAIISampler")
Search = Callable[[int], np.ndarray]  # seed -> f32[budget, 2]


def ours(name: str, evaluate, budget: int) -> Search:
    """A strategy of this project, its whole search compiled."""
    strategy = STRATEGIES[name](HWGPT(), population=BATCH, **SETTINGS[name])

    @jax.jit
    def run(seed):
        key = jax.random.key(seed)
        _, history = simulate(strategy, key, evaluate, budget // BATCH)
        return history.objectives.reshape(-1, 2)

    return lambda seed: np.asarray(run(seed))


def theirs(name: str, evaluate, budget: int) -> Search:
    """A peer."""
    at_once = jax.jit(evaluate)
    by_hand = lambda genomes: np.asarray(at_once(genomes))
    sizes = HWGPT().cardinality
    if name.startswith("pymoo"):
        population = int(name.split()[-1])
        return lambda seed: pymoo_nsga2(by_hand, sizes, budget, seed, population)
    sampler = name.removeprefix("Optuna ")
    return lambda seed: optuna_sampler(sampler, by_hand, sizes, budget, seed)


def volumes(told: np.ndarray) -> list[float]:
    """The hypervolume after each budget that was spent."""
    volume = jax.jit(functools.partial(hypervolume, reference=REFERENCE))
    spent = [budget for budget in BUDGETS if budget <= len(told)]
    return [float(volume(jnp.asarray(told[:budget]))) for budget in spent]


def measure(name: str, search: Search, seeds: int) -> dict:
    """All seeds of one strategy, and a line about them."""
    begin = time.perf_counter()
    found = [volumes(search(seed)) for seed in range(seeds)]
    seconds = (time.perf_counter() - begin) / seeds
    show(name, found, seconds)
    return {"hypervolume": found, "seconds_per_search": round(seconds, 1)}


def show(name: str, found: list[list[float]], seconds: float):
    """A line of the table: the means, how far the last spreads, how long it took."""
    means = "  ".join(f"{mean:.4f}" for mean in np.mean(found, axis=0))
    spread = np.std(found, axis=0)[-1]
    print(f"{name:21} {means}   +- {spread:.4f}   {seconds:6.1f} s", flush=True)


def plot(path: Path, results: dict[str, dict]):
    """Mean hypervolume over evaluations, one line a strategy."""
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, result in results.items():
        found = np.asarray(result["hypervolume"])
        style = "--" if name in PEERS else "-"
        spent = BUDGETS[: found.shape[1]]
        axes.errorbar(
            spent, found.mean(axis=0), found.std(axis=0), fmt=style, label=name
        )
    axes.set(xscale="log", xlabel="evaluations", ylabel="hypervolume")
    axes.set_xticks(BUDGETS, map(str, BUDGETS), minor=False)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="a folder for hwgpt.json and .png")
    parser.add_argument("--budget", type=int, choices=BUDGETS, default=BUDGETS[-1])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=[*SETTINGS, *PEERS], action="append")
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    evaluate = evaluator(arguments.data)
    print("mean hypervolume after", *BUDGETS, "evaluations,", arguments.seeds, "seeds")
    record = arguments.out and arguments.out / "hwgpt.json"
    results = json.loads(record.read_text()) if record and record.exists() else {}
    for name in arguments.only or [*SETTINGS, *PEERS]:
        make = theirs if name in PEERS else ours
        search = make(name, evaluate, arguments.budget)
        results[name] = measure(name, search, arguments.seeds)
        if record:
            record.write_text(json.dumps(results, indent=1) + "\n")
            plot(record.with_suffix(".png"), results)


if __name__ == "__main__":
    main()
