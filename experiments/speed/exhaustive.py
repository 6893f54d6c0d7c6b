"""How fast a whole space is scored, beside NumPy columns and a plain loop.

All three use the same formulas. The loop takes one model at a time as Python
numbers; columns take a row a model, in blocks; ours takes one axis a gene, and
sums that many models share are computed once.

    python experiments/speed/exhaustive.py
"""

import argparse
import platform
import resource
import statistics
import time

import numpy as np

from arch.cost import HARDWARE
from arch.cost.sizes import Sizes, Storage
from arch.genes import GENES
from arch.spaces import SPACES, space_named
from jaxnas.analytic.exhaustive import front_of, score_space
from jaxnas.analytic.grid import Grid, grids_of
from jaxnas.analytic.objectives import Use, columns_of
from jaxnas.report.tables import add_numbers, plain_console, plain_table

FIGURES = ["params", "size", "flops", "latency", "loss"]
OBJECTIVES = ["size", "latency", "loss"]
FIELDS = {"vocab_size": 8192, "max_seq_length": 2048}
USE = Use(hardware=HARDWARE["cpu-core"])


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", choices=SPACES, default="full")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the columns")
    parser.add_argument("--block", type=int, default=65_536, help="rows at once")
    parser.add_argument("--models", type=int, default=3_000, help="of the plain loop")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    space = space_named(options.space)
    rng = np.random.default_rng(0)
    grids = list(grids_of(space, **FIELDS))
    drawn = [draw(grid, options.rows // len(grids), rng) for grid in grids]
    few = [draw(grid, options.models // len(grids), rng) for grid in grids]
    times: dict[str, list[float]] = {"ours": [], "columns": [], "loop": [], "front": []}
    for _ in range(options.repeats):
        times["ours"].append(timed(lambda: score_space(space, FIGURES, USE, **FIELDS)))
        times["columns"].append(timed(lambda: by_columns(drawn, options.block)))
        times["loop"].append(timed(lambda: one_by_one(few)))
        times["front"].append(timed(lambda: front_of(space, OBJECTIVES, USE, **FIELDS)))
    seconds = {name: statistics.median(each) for name, each in times.items()}
    models = space.distinct_count
    rates = {
        "ours": models / seconds["ours"],
        "columns": sum(len(part[1]) for part in drawn) / seconds["columns"],
        "loop": sum(len(part[1]) for part in few) / seconds["loop"],
    }
    console = plain_console()
    console.print(
        f"{platform.machine()}, Python {platform.python_version()}, numpy "
        f"{np.__version__}; space {space.name}: {space.total:,} genomes, {models:,} "
        f"valid and distinct; {', '.join(FIGURES)}"
    )
    table = plain_table("Scoring", "how")
    add_numbers(table, "models/s", "the whole space s", "ours is faster by")
    for name, rate in rates.items():
        table.add_row(
            name, f"{rate:,.0f}", f"{models / rate:.3g}", f"{rates['ours'] / rate:.1f}x"
        )
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(
        f"scored, with the exact front over {', '.join(OBJECTIVES)}: "
        f"{seconds['front']:.2f} s; peak memory of this process {peak:.2f} GiB"
    )


def timed(function) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def draw(grid: Grid, number: int, rng) -> tuple[Grid, np.ndarray]:
    """A grid and i64[N, 12], places of random valid genomes in it."""
    places = rng.integers(0, grid.shape, (2 * number, len(GENES)))
    valid = np.broadcast_to(grid.valid, grid.shape)[tuple(places.T)]
    return grid, places[valid][:number]


def by_columns(drawn: list[tuple[Grid, np.ndarray]], block: int):
    """Every figure of a row a model."""
    for grid, places in drawn:
        for begin in range(0, len(places), block):
            rows = places[begin : begin + block]
            columns_of(FIGURES, taken(grid.trained, rows), taken(grid.sizes, rows), USE)


def one_by_one(drawn: list[tuple[Grid, np.ndarray]]):
    """Every figure of one model at a time, with Python's own numbers."""
    for grid, places in drawn:
        trained, exported = taken(grid.trained, places), taken(grid.sizes, places)
        for row in range(len(places)):
            columns_of(FIGURES, alone(trained, row), alone(exported, row), USE)


def taken(sizes: Sizes, places: np.ndarray) -> Sizes:
    """The columns of some places, one row each."""

    def column(values):
        index = np.minimum(places, np.asarray(values.shape) - 1)
        return values[tuple(index.T)]

    return in_each(column, sizes)


def alone(sizes: Sizes, row: int) -> Sizes:
    """One row's sizes as Python ints."""
    return in_each(lambda column: int(column[row]), sizes)


def in_each(change, sizes: Sizes) -> Sizes:
    """The same change to all columns."""
    storage = Storage._make(map(change, sizes.storage))
    names = [name for name in sizes._fields if name not in ("arch_type", "storage")]
    columns = {name: change(getattr(sizes, name)) for name in names}
    return sizes._replace(storage=storage, **columns)


if __name__ == "__main__":
    main()
