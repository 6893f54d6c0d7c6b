"""Every strategy of `automl` on five specs: best score and seconds, compiling included.

python experiments/shapes/strategies.py
"""

import time

import jax

from jaxnas.automl.problem import Problem
from jaxnas.automl.search import EXHAUSTIVE, SEARCHES, search_shapes, usual_strategy
from jaxnas.automl.spec import read_spec

SPECS = ("125m", "1b", "8b", "phone", "7b")
AIMS = ("params", "latency", "performance")
BUDGET = 100_000


def main() -> None:
    """Prints a table in Markdown."""
    print("| spec | shapes | default | strategy | evaluated | best score | s |")
    print("|---|---:|---|---|---:|---:|---:|")
    for name in SPECS:
        for strategy in (EXHAUSTIVE, *SEARCHES):
            jax.clear_caches()
            problem = Problem(read_spec(name), AIMS)
            begin = time.perf_counter()
            found = search_shapes(problem, strategy, BUDGET, 10, jax.random.key(0))
            seconds = time.perf_counter() - begin
            cells = (
                name,
                f"{problem.shapes.total:,}",
                usual_strategy(problem.shapes.total),
                strategy,
                f"{found.evaluated:,}",
                f"{found.scores[0]:.6f}",
                f"{seconds:.1f}",
            )
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
