"""NSGA-II, a generation of ours against one of pymoo's, in the same run.

    python experiments/speed/nsga2.py

16 integer genes, 3 objectives, the same operators: simulated binary crossover
and polynomial mutation, rounded. Ours is one compiled scan; pymoo has its
compiled sorting. With `distinct` both also keep copies out. Rounds alternate;
the table has the median of each. Needs the `bench` extra.
"""

import argparse
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.functions import is_compiled
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from search import non_dominated_ranks, nsga2, simulate

GENES, CHOICES = 16, 10
GENERATIONS = {100: 100, 1000: 30, 5000: 8}
TARGETS = np.random.default_rng(0).integers(0, CHOICES, (3, GENES))


class Grid(NamedTuple):
    """Every genome is valid."""

    @property
    def cardinality(self):
        return np.full(GENES, CHOICES, np.int32)

    def valid(self, genome):
        return jnp.bool_(True)

    def repair(self, genome):
        return genome


def evaluate(genomes, xp=jnp):
    """[B, 16] -> [B, 3], squared distances to three targets."""
    gaps = genomes[:, None] - TARGETS[None]
    return (gaps * gaps).sum(axis=2).astype(xp.float32)


class Distances(Problem):
    """The same for pymoo."""

    def __init__(self):
        super().__init__(n_var=GENES, n_obj=3, xl=0, xu=CHOICES - 1, vtype=int)

    def _evaluate(self, x, out, *args, **kwargs):
        out["F"] = evaluate(x, np).astype(float)


def ours(population: int, distinct: bool):
    """A function: seed -> seconds of a generation."""
    generations = GENERATIONS[population]
    strategy = nsga2(
        Grid(),
        objectives=3,
        population=population,
        ordered=np.ones(GENES, bool),
        distinct=distinct,
    )
    run = jax.jit(
        lambda seed: simulate(strategy, jax.random.key(seed), evaluate, generations)
    )
    jax.block_until_ready(run(0))

    def timed(seed):
        begin = time.perf_counter()
        jax.block_until_ready(run(seed))
        return (time.perf_counter() - begin) / generations

    return timed


def theirs(population: int, distinct: bool):
    """A function: seed -> seconds of a generation."""

    def timed(seed):
        algorithm = NSGA2(
            pop_size=population,
            sampling=IntegerRandomSampling(),
            crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
            mutation=PM(prob=1.0, eta=3, vtype=float, repair=RoundingRepair()),
            eliminate_duplicates=distinct,
        )
        generations = GENERATIONS[population]
        algorithm.setup(Distances(), termination=("n_gen", generations), seed=seed)
        begin = time.perf_counter()
        while algorithm.has_next():
            algorithm.next()
        return (time.perf_counter() - begin) / generations

    return timed


def same_ranks(number: int) -> bool:
    """Whether both rank random objectives, with ties and copies, alike."""
    genomes = np.random.default_rng(1).integers(0, CHOICES, (number, GENES))
    rows = evaluate(genomes, np)
    rows[: number // 10] = rows[-(number // 10) :]
    _, ranks = NonDominatedSorting().do(rows.astype(float), return_rank=True)
    return bool((np.asarray(jax.jit(non_dominated_ranks)(rows)) == ranks).all())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"pymoo compiled: {is_compiled()}; jax {jax.__version__}, {jax.devices()[0]}")
    print("population  distinct  ours ms  pymoo ms  ratio  ranks the same")
    for population in GENERATIONS:
        for distinct in (False, True):
            pair = [make(population, distinct) for make in (ours, theirs)]
            times = [[timed(seed) for timed in pair] for seed in range(rounds)]
            mine, other = (
                statistics.median(column) * 1e3 for column in zip(*times, strict=True)
            )
            print(
                f"{population:10}  {distinct!s:8}  {mine:7.2f}  {other:8.2f}  "
                f"{other / mine:5.1f}  {same_ranks(2 * population)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
