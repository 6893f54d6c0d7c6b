"""A spec as a search problem: shapes, their exact figures, and what is minimised."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig
from arch.cost import Sizes
from jaxnas.analytic.limits import Column, violation
from jaxnas.analytic.objectives import OBJECTIVES
from jaxnas.automl.shapes import Shapes
from jaxnas.automl.spec import AIMS, Spec

# Each shape's figures, in tables and in JSON.
SHOWN = ("params", "memory", "prefill", "decode", "loss")

# What a candidate that breaks a limit has for each objective, beside by how much.
_BEHIND = 10.0


class Candidates(NamedTuple):
    """Shapes and their figures."""

    genomes: np.ndarray  # i32[N, G]
    values: dict[str, np.ndarray]  # f64[N] each, names in OBJECTIVES
    violation: np.ndarray  # f64[N], 0 within the limits

    def take(self, rows: np.ndarray) -> "Candidates":
        """Some of them."""
        values = {name: column[rows] for name, column in self.values.items()}
        return Candidates(self.genomes[rows], values, self.violation[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A spec's shapes under some objectives.

    Attributes:
      spec: see `Spec`.
      objectives: names in AIMS.
    """

    spec: Spec
    objectives: tuple[str, ...]

    @functools.cached_property
    def shapes(self) -> Shapes:
        """The genomes."""
        return Shapes(self.spec)

    @property
    def aims(self) -> list[str]:
        """Names in OBJECTIVES of what is minimised."""
        return [AIMS[name] for name in self.objectives]

    @property
    def figures(self) -> list[str]:
        """Names in OBJECTIVES of all that is computed."""
        limited = [limit.objective for limit in self.spec.limits]
        return list(dict.fromkeys([*SHOWN, *self.aims, *limited]))

    def candidates(self, genomes: np.ndarray) -> Candidates:
        """Exact figures, float64.

        Args:
          genomes: i32[N, G], valid.
        """
        sizes = self.shapes.sizes(genomes)
        return self._judged(genomes, self._values(sizes, (len(genomes),)))

    def everything(self) -> Candidates:
        """Every valid genome."""
        parts = []
        for block in self.shapes.blocks():
            columns = np.broadcast_arrays(*block.genomes)
            genomes = np.stack([c.reshape(-1) for c in columns], 1).astype(np.int32)
            values = self._values(self.shapes.block_sizes(block), block.shape)
            parts.append(self._judged(genomes, values))
        return joined(parts)

    def losses(self, genomes: jax.Array) -> jax.Array:
        """i32[B, G] -> f32[B, M], to be minimised, to about 6 digits, under jit.

        Within the limits each is the position between `bounds`; a shape that breaks
        them has the same for each, above all others, by how much they are broken.
        """
        sizes, use = self.shapes.sizes(genomes), self.spec.use
        named = {
            name: jnp.asarray(OBJECTIVES[name].of(sizes, sizes, use), jnp.float32)
            for name in self.figures
        }
        positions = [self._position(name, named[name], jnp) for name in self.aims]
        stacked = jnp.stack(jnp.broadcast_arrays(*positions), axis=-1)
        broken = jnp.asarray(violation(self.spec.limits, named, jnp))
        broken = jnp.broadcast_to(broken, stacked.shape[:1])[:, None]
        return jnp.where(broken > 0, _BEHIND + broken, stacked)

    def scalarize(self, losses: jax.Array) -> jax.Array:
        """f32[N, M] -> f32[N]: one loss, by the spec's weights."""
        return losses @ jnp.asarray(self._weights, jnp.float32)

    def scores(self, candidates: Candidates) -> np.ndarray:
        """f64[N], at most about 1 and higher is better."""
        positions = [
            self._position(name, candidates.values[name], np) for name in self.aims
        ]
        return 1.0 - np.stack(positions, axis=-1) @ self._weights

    def table(self, candidates: Candidates) -> np.ndarray:
        """f64[N, M], what is minimised."""
        return np.stack([candidates.values[name] for name in self.aims], axis=1)

    @functools.cached_property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Least and greatest of each objective, over the corners of the grid.

        A limit takes the place of an end that lies beyond it.
        """
        ends = [(0, len(values) - 1) for values in self.shapes.choices.values()]
        grid = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, len(ends))
        corners = np.unique(self.shapes.repaired(grid), axis=0)
        values = self.candidates(corners).values
        limits = {limit.objective: limit for limit in self.spec.limits}
        bounds = {}
        for name in self.aims:
            least, most = values[name].min(), values[name].max()
            if name in limits:
                least = max(least, limits[name].least)
                most = min(most, limits[name].most)
            bounds[name] = (float(least), float(max(most, least * (1 + 1e-6))))
        return bounds

    @property
    def _weights(self) -> np.ndarray:
        weights = np.asarray([self.spec.weights[name] for name in self.objectives])
        return weights / weights.sum()

    def _position(self, name: str, values: Column, xp: ModuleType) -> Column:
        least, most = self.bounds[name]
        return (xp.log(values) - math.log(least)) / (math.log(most) - math.log(least))

    def _values(self, sizes: Sizes, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        # Nothing is pruned: what is trained is what is exported.
        return {
            name: np.broadcast_to(
                np.asarray(OBJECTIVES[name].of(sizes, sizes, self.spec.use), float),
                shape,
            ).reshape(-1)
            for name in self.figures
        }

    def _judged(self, genomes: np.ndarray, values: dict[str, np.ndarray]) -> Candidates:
        broken = np.broadcast_to(violation(self.spec.limits, values), len(genomes))
        return Candidates(genomes, values, broken)


def joined(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of all parts, in their order."""
    return Candidates(
        np.concatenate([part.genomes for part in parts]),
        {
            name: np.concatenate([part.values[name] for part in parts])
            for name in parts[0].values
        },
        np.concatenate([part.violation for part in parts]),
    )


def configs_of(problem: Problem, candidates: Candidates) -> list[ArchitectureConfig]:
    """The config of each candidate."""
    return [problem.shapes.config(genome) for genome in candidates.genomes]
