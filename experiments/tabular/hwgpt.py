"""Strategies on HW-GPT-Bench-S (arXiv:2405.10299): hypervolume over evaluations.

    python experiments/tabular/hwgpt.py --data perplexity_s.npz

Minimised are the perplexity that the benchmark's own network predicts and the
number of parameters. Strategies are built as a run builds them. They and the rules
ask `--batch` at once. The peers come with the extra `bench`.
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
from hwgpt_rules import analytic, analytic_list, pairwise_ridge, random_spread
from peers import optuna_sampler, pymoo_nsga2

from jaxnas.pipeline.strategy import build_strategy
from search import STRATEGIES, hypervolume, simulate

matplotlib.use("Agg")
from matplotlib import pyplot  # after the choice of a backend

BUDGETS = (20, 40, 60, 100, 200, 400, 1000)
PROPOSALS = 200
SETTINGS: dict[str, dict[str, float]] = {"predictor": {"capacity": 1024}}
RULES = {
    "random spread": random_spread,
    "analytic list": analytic,
    "pairwise ridge": pairwise_ridge,
}
PEERS = ("pymoo NSGA-II of 20", "pymoo NSGA-II of 40", "Optuna NSGAIISampler")
NAMES = (*STRATEGIES, *RULES, *PEERS)
Search = Callable[[int], np.ndarray]  # seed -> f32[budget, 2]


def ours(name: str, evaluate, budget: int, batch: int) -> Search:
    """A strategy as a run builds it, its whole search compiled."""
    strategy = build_strategy(
        name,
        HWGPT(),
        objectives=2,
        population=batch,
        scalarize=lambda objectives: objectives.sum(axis=1),
        ordered=np.ones(27, bool),
        canonical=canonical,
        proposals=analytic_list(0, PROPOSALS),
        cheap=scaled_parameters,
        cheap_columns=(1,),
        settings=SETTINGS.get(name),
    )

    @jax.jit
    def run(seed):
        key = jax.random.key(seed)
        _, history = simulate(strategy, key, evaluate, budget // batch)
        return history.objectives.reshape(-1, 2)

    return lambda seed: np.asarray(run(seed))


def rule(name: str, evaluate, budget: int, batch: int) -> Search:
    """One of the rules that a strategy has to beat."""
    evaluate = jax.jit(evaluate)
    more = {"batch": batch} if name == "pairwise ridge" else {}
    return lambda seed: RULES[name](evaluate, budget, seed, **more)


def theirs(name: str, evaluate, budget: int, batch: int) -> Search:
    """A peer, which asks as many at once as its name says."""
    del batch
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
    return {
        "evaluations": BUDGETS[: len(found[0])],
        "hypervolume": found,
        "seconds_per_search": round(seconds, 1),
    }


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
        style = "--" if name in PEERS else ":" if name in RULES else "-"
        spent = result["evaluations"]
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
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--only", choices=NAMES, action="append")
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    evaluate = evaluator(arguments.data)
    print("mean hypervolume after", *BUDGETS, "evaluations,", arguments.seeds, "seeds")
    record = arguments.out and arguments.out / "hwgpt.json"
    results = json.loads(record.read_text()) if record and record.exists() else {}
    makers = dict.fromkeys(STRATEGIES, ours) | dict.fromkeys(RULES, rule)
    for name in arguments.only or NAMES:
        make = makers.get(name, theirs)
        search = make(name, evaluate, arguments.budget, arguments.batch)
        results[name] = measure(name, search, arguments.seeds)
        if record:
            record.write_text(json.dumps(results, indent=1) + "\n")
            plot(record.with_suffix(".png"), results)


if __name__ == "__main__":
    main()
