"""What each part of a strategy is worth, on HW-GPT-Bench-S (arXiv:2405.10299).

    python experiments/ablation/ablation.py --data perplexity_s.npz [--budget 100]

Each row leaves one thing out of a strategy as a run builds it, or puts the simple
thing in its place, by an argument that anyone can give (`build_strategy`, and the
settings --crossover-rate and --elite-share). The smart start is a known good model,
GPT-2 small, near which half of what a first population draws lies. Hypervolume of
what was evaluated, mean of the seeds, and the difference to the whole strategy on the
same seeds with its 95 % interval.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tabular"))

from hwgpt import volumes
from hwgpt_models import HWGPT, canonical, evaluator, scaled_parameters
from hwgpt_rules import analytic_list

from jaxnas.pipeline.strategy import build_strategy
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from search import simulate

PROPOSALS, BATCH = 200, 10
BUDGETS = (20, 40, 60, 100, 200)
LIST, SMART, EXACT = (
    {"proposals": None},
    {"seeds": None},
    {"cheap": None, "cheap_columns": ()},
)
CROSSOVER = {"settings": {"crossover_rate": 0.0}}
# Strategy -> what is left out -> what is built instead.
ARMS: dict[str, dict[str, dict]] = {
    "predictor": {
        "whole": {},
        "no analytic list": LIST,
        "no smart start": SMART,
        "no exact costs": EXACT,
        "noise fixed at 0.001": {"settings": {"noises": (1e-3,)}},
        "choices without order": {"ordered": None},
        "none of these": LIST
        | SMART
        | EXACT
        | {"settings": {"noises": (1e-3,)}, "ordered": None},
    },
    "genetic": {
        "whole": {},
        "no analytic list": LIST,
        "no smart start": SMART,
        "no crossover": CROSSOVER,
        "no elite": {"settings": {"elite_share": 0.0}},
        "neither list nor start": LIST | SMART,
    },
    "nsga2": {
        "whole": {},
        "no analytic list": LIST,
        "no smart start": SMART,
        "no crossover": CROSSOVER,
        "neither list nor start": LIST | SMART,
    },
}
# GPT-2 small (Radford et al. 2019): width 768, 12 layers, feed-forward 4, 12 heads.
GPT2 = np.asarray([[2] * 26 + [0]], np.int32)


def arm(name: str, change: dict, evaluate, budget: int) -> Callable[[int], np.ndarray]:
    """A strategy with a change: seed -> f32[budget, 2]."""
    whole: dict = {
        "ordered": np.ones(27, bool),
        "proposals": analytic_list(0, PROPOSALS),
        "seeds": GPT2,
        "cheap": scaled_parameters,
        "cheap_columns": (1,),
        "settings": {},
    }
    strategy = build_strategy(
        name,
        HWGPT(),
        objectives=2,
        population=BATCH,
        scalarize=lambda objectives: objectives.sum(axis=1),
        canonical=canonical,
        **whole | change,
    )

    @jax.jit
    def run(seed: int) -> jax.Array:
        key = jax.random.key(seed)
        _, history = simulate(strategy, key, evaluate, budget // BATCH)
        return history.objectives.reshape(-1, 2)

    return lambda seed: np.asarray(run(seed))


def interval(differences: np.ndarray) -> float:
    """Half of the 95 % interval of the mean, by Student's t."""
    number = len(differences)
    error = differences.std(ddof=1) / np.sqrt(number)
    return float(stats.t.ppf(0.975, number - 1) * error)


def main() -> None:
    """Prints a table for each strategy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget", type=int, choices=BUDGETS, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=list(ARMS), action="append")
    options = parser.parse_args()
    evaluate, console = evaluator(options.data), plain_console()
    spent = [budget for budget in BUDGETS if budget <= options.budget]
    for name in options.only or ARMS:
        table = plain_table(f"{name}, {options.seeds} seeds", "")
        add_numbers(table, *map(str, spent), f"whole - this, {spent[-1]}", "+-")
        whole = None
        for words, change in ARMS[name].items():
            search = arm(name, change, evaluate, options.budget)
            found = np.asarray([volumes(search(seed)) for seed in range(options.seeds)])
            whole = found if whole is None else whole
            lost = whole[:, -1] - found[:, -1]
            cells = [f"{mean:.4f}" for mean in found.mean(axis=0)]
            cells += [f"{lost.mean():+.4f}", f"{interval(lost):.4f}"]
            table.add_row(
                words, *(cells if words != "whole" else [*cells[:-2], "", ""])
            )
        console.print(table)


if __name__ == "__main__":
    main()
