"""Every genome of a space scored, and the exact Pareto front of them all."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from arch import ArchitectureConfig
from arch.space import Space
from jaxnas.analytic.grid import Grid, cells_of, grids_of
from jaxnas.analytic.limits import Binding, Limit, bindings, violation
from jaxnas.analytic.objectives import Use, columns_of
from jaxnas.errors import UsageError
from search.pareto.exact_front import exact_front

MOST_CELLS = 20_000_000  # which take some gigabytes


class ScoredCells(NamedTuple):
    """The cells of a family: genomes that differ only in what costs nothing."""

    grid: Grid
    cells: np.ndarray  # i64[N], places in the grid of what costs depend on
    shape: tuple[int, ...]  # of that grid
    genomes: np.ndarray  # i64[N], distinct valid genomes of each cell
    values: np.ndarray  # f64[N, K]

    def place(
        self, row: int, usual: Mapping[int, int] | None = None
    ) -> tuple[int, ...]:
        """A valid genome of a cell, as a place in the family's grid.

        The first one; with the most of the usual choices, by axis, if there are such.
        """
        cell = np.unravel_index(self.cells[row], self.shape)
        valid = np.broadcast_to(self.grid.valid, self.grid.shape)
        free = [
            slice(None) if length == 1 else slice(index, index + 1)
            for index, length in zip(cell, self.shape, strict=True)
        ]
        places = np.argwhere(valid[tuple(free)])
        alike = [places[:, axis] == choice for axis, choice in (usual or {}).items()]
        first = places[np.sum(alike, axis=0).argmax() if alike else 0]
        return tuple(
            int(own if length == 1 else index)
            for own, index, length in zip(first, cell, self.shape, strict=True)
        )


class FrontPoint(NamedTuple):
    """Models that the objectives do not tell apart."""

    values: tuple[float, ...]  # of each figure
    config: ArchitectureConfig  # one of them
    genomes: int  # how many they are


class SpaceFront(NamedTuple):
    """The exact front of a space, and what it was taken from."""

    figures: tuple[str, ...]  # the objectives, then what is only limited
    points: list[FrontPoint]  # by the first objective
    genomes: int  # distinct and valid
    feasible: int  # of them, within the limits
    binding: list[Binding]  # each limit alone
    every: np.ndarray  # f64[N, K], the figures of all cells, for a plot


def score_space(
    space: Space, figures: Sequence[str], use: Use, **fields: Any
) -> list[ScoredCells]:
    """All valid genomes of a space, family by family.

    Args:
      space: see `Space`.
      figures: names in OBJECTIVES.
      use: see `Use`.
      **fields: of the configs that are no genes: vocab_size, tie_embeddings, ...

    Raises:
      UsageError: the space has more than MOST_CELLS cells.
    """
    if (cells := cells_of(space)) > MOST_CELLS:
        raise UsageError(
            f"space {space.name} is too large for a table of its costs: {cells:,} "
            f"kinds of model, at most {MOST_CELLS:,} can be"
        )
    return [_scored(grid, figures, use) for grid in grids_of(space, **fields)]


def front_of(
    space: Space,
    objectives: Sequence[str],
    use: Use,
    limits: Sequence[Limit] = (),
    **fields: Any,
) -> SpaceFront:
    """The exact Pareto front over the distinct valid genomes of a space.

    Args:
      space: see `Space`.
      objectives: names in OBJECTIVES, minimised.
      use: see `Use`.
      limits: a model that breaks one is not on the front.
      **fields: of the configs that are no genes.
    """
    figures = tuple(
        dict.fromkeys([*objectives, *(limit.objective for limit in limits)])
    )
    families = score_space(space, figures, use, **fields)
    values = np.concatenate([family.values for family in families])
    genomes = np.concatenate([family.genomes for family in families])
    named = dict(zip(figures, values.T, strict=True))
    kept = np.flatnonzero(np.broadcast_to(violation(limits, named) <= 0, len(values)))
    front = kept[exact_front(values[kept, : len(objectives)])]
    # Rows that the objectives do not tell apart are one point.
    _, first, copy_of = np.unique(
        values[front, : len(objectives)],
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    numbers = np.bincount(copy_of.reshape(-1), genomes[front])
    begins = np.cumsum([0, *(len(family.cells) for family in families)])
    points = []
    for row, number in zip(front[first], numbers, strict=True):
        family = int(np.searchsorted(begins, row, side="right")) - 1
        scored = families[family]
        genome = scored.grid.genome(scored.place(row - begins[family]))
        points.append(
            FrontPoint(
                values=tuple(values[row].tolist()),
                config=space.decode(genome, **fields),
                genomes=int(number),
            )
        )
    return SpaceFront(
        figures=figures,
        points=points,
        genomes=int(genomes.sum()),
        feasible=int(genomes[kept].sum()),
        binding=bindings(limits, named),
        every=values,
    )


def _scored(grid: Grid, figures: Sequence[str], use: Use) -> ScoredCells:
    columns = columns_of(figures, grid.trained, grid.sizes, use)
    shape = np.broadcast_shapes(*(column.shape for column in columns))
    genomes = np.broadcast_to(_counted(grid, shape), shape).reshape(-1)
    cells = np.flatnonzero(genomes)
    values = [np.broadcast_to(column, shape).reshape(-1)[cells] for column in columns]
    return ScoredCells(
        grid=grid,
        cells=cells,
        shape=shape,
        genomes=genomes[cells],
        values=np.stack(values, axis=1),
    )


def _counted(grid: Grid, shape: tuple[int, ...]) -> np.ndarray:
    """i64, valid genomes of each cell of a grid of that shape."""
    summed = tuple(axis for axis, length in enumerate(shape) if length == 1)
    counts = grid.valid.sum(axis=summed, keepdims=True)
    # An axis on which validity does not depend counts each of its choices.
    times = [grid.shape[axis] for axis in summed if grid.valid.shape[axis] == 1]
    return counts * np.prod(times, dtype=np.int64)
