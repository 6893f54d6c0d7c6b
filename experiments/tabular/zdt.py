"""NSGA-II on ZDT1, 2 and 3 (Zitzler et al. 2000), ours beside pymoo's.

    python experiments/tabular/zdt.py

30 real genes, population 100, 250 generations, simulated binary crossover
(eta 15, rate 0.9) and polynomial mutation (eta 20, rate 1/30); copies are kept
out. Ours is one compiled scan. Printed are the mean and the deviation of the
last population's hypervolume over the seeds, and seconds of a search. Needs the
`bench` extra.
"""

import argparse
import functools
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
import pymoo
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.functions import is_compiled
from pymoo.indicators.hv import HV
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.optimize import minimize
from pymoo.problems import get_problem

from search import nsga2_with, simulate, vary_real

GENES, POPULATION, GENERATIONS = 30, 100, 250
REFERENCE = np.array([1.1, 1.1])


def zdt1(first, g):
    return 1 - jnp.sqrt(first / g)


def zdt2(first, g):
    return 1 - (first / g) ** 2


def zdt3(first, g):
    return zdt1(first, g) - first / g * jnp.sin(10 * jnp.pi * first)


PROBLEMS = {"zdt1": zdt1, "zdt2": zdt2, "zdt3": zdt3}


def evaluate(shape, genomes):
    """f32[B, 30] in [0, 1] -> f32[B, 2]."""
    first, others = genomes[:, 0], genomes[:, 1:]
    g = 1 + 9 * others.mean(axis=1)
    return jnp.stack([first, g * shape(first, g)], axis=1)


def ours(name: str):
    """A function: seed -> the last population's objectives."""
    low, high = jnp.zeros(GENES), jnp.ones(GENES)
    first = lambda key: jax.random.uniform(key, (POPULATION, GENES))
    vary = functools.partial(vary_real, low=low, high=high, mutation_rate=1 / GENES)
    strategy = nsga2_with(first, vary, objectives=2)
    told = functools.partial(evaluate, PROBLEMS[name])
    run = jax.jit(
        lambda seed: simulate(strategy, jax.random.key(seed), told, GENERATIONS)[0]
    )
    jax.block_until_ready(run(0))
    return lambda seed: np.asarray(run(seed).objectives)


def theirs(name: str):
    """The same of pymoo's."""

    def search(seed):
        algorithm = NSGA2(
            pop_size=POPULATION,
            crossover=SBX(prob=0.9, eta=15),
            mutation=PM(prob=1.0, prob_var=1 / GENES, eta=20),
        )
        problem = get_problem(name, n_var=GENES)
        return minimize(problem, algorithm, ("n_gen", GENERATIONS), seed=seed).F

    return search


def measured(search, seeds: int) -> str:
    """Hypervolume and seconds, as columns of the table."""
    volumes, times = [], []
    for seed in range(seeds):
        begin = time.perf_counter()
        found = search(seed)
        times.append(time.perf_counter() - begin)
        volumes.append(HV(ref_point=REFERENCE)(found.astype(float)))
    return f"{np.mean(volumes):.4f} +- {np.std(volumes):.4f}  {np.median(times):6.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    print(
        f"Python {platform.python_version()}, jax {jax.__version__} on "
        f"{jax.devices()[0]}, pymoo {pymoo.__version__} compiled: {is_compiled()}"
    )
    print("problem  ours                s  pymoo               s")
    for name in PROBLEMS:
        columns = [measured(make(name), seeds) for make in (ours, theirs)]
        print(f"{name}     {'  '.join(columns)}", flush=True)


if __name__ == "__main__":
    main()
