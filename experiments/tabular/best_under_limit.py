"""Strategies on HW-GPT-Bench-S: the best model under a limit on parameters.

    python experiments/tabular/best_under_limit.py --data perplexity_s.npz

Minimised is the perplexity that the benchmark's own network predicts, and it alone;
what has more parameters than `--share` of all models is never asked. Strategies are
built as a run with `--max-size` builds them, but start without proposals.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from hwgpt_models import HIGH, HWGPT, LOW, canonical, evaluator, scaled_parameters
from hwgpt_rules import analytic_list

from jaxnas.pipeline.strategy import build_strategy
from search import STRATEGIES, simulate
from search.limits import limited

DRAWN = 20_000  # models, whose parameters stand for those of all
LISTED = 200  # models of which some are allowed


def allowed(share: float):
    """The space, of which that share has few enough parameters."""
    genes = HWGPT()
    drawn = np.random.default_rng(0).integers(0, genes.cardinality, (DRAWN, 27))
    most = np.quantile(scaled_parameters(jnp.asarray(drawn, jnp.int32)), share)
    listed = np.asarray(analytic_list(0, LISTED))
    few = np.asarray(scaled_parameters(listed))[:, 0] <= most
    excess = lambda genome: scaled_parameters(genome[None])[0, 0] - float(most)
    return limited(genes, excess, listed[few])


def search(name: str, genes, evaluate, budget: int, batch: int):
    """seed -> f32[budget], the perplexities in the order in which it asked."""
    strategy = build_strategy(
        name,
        genes,
        objectives=1,
        population=batch,
        scalarize=lambda objectives: objectives[:, 0],
        ordered=np.ones(27, bool),
        canonical=canonical,
    )

    @jax.jit
    def run(seed):
        perplexity = lambda genomes: evaluate(genomes)[:, :1]
        key = jax.random.key(seed)
        _, history = simulate(strategy, key, perplexity, budget // batch)
        return history.objectives.reshape(-1)

    return lambda seed: np.asarray(run(seed)) * (HIGH - LOW)[0] + LOW[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.4)
    parser.add_argument("--budget", type=int, default=36)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--only", choices=sorted(STRATEGIES), action="append")
    options = parser.parse_args()
    genes, evaluate = allowed(options.share), evaluator(options.data)
    after = range(options.batch, options.budget + 1, options.batch)
    print("best perplexity after", *after, "evaluations,", options.seeds, "seeds")
    for name in options.only or STRATEGIES:
        run = search(name, genes, evaluate, options.budget, options.batch)
        found = np.stack([run(seed) for seed in range(options.seeds)])
        best = np.minimum.accumulate(found, axis=1)[
            :, options.batch - 1 :: options.batch
        ]
        means = "  ".join(f"{mean:.3f}" for mean in best.mean(axis=0))
        print(f"{name:10} {means}   +- {best[:, -1].std():.3f}", flush=True)


if __name__ == "__main__":
    main()
