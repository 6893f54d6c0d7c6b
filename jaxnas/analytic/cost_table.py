"""What every genome of a space costs, by look-up: for strategies, inside jit."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch.cost import Hardware
from arch.genes import DEFAULTS
from arch.scaling.predicted_loss import DEFAULT_LAW
from arch.space import Space
from jaxnas.analytic.exhaustive import ScoredCells, score_space
from jaxnas.analytic.objectives import Use
from search.pareto.exact_front import exact_front
from search.pareto.thinning import spread_order

# The latency that a run is asked for -> the name in `objectives.OBJECTIVES`.
_LATENCIES = {"estimate": "latency", "prefill": "prefill", "decode": "decode"}


_PLAIN = {"tie_embeddings": False, "pruning_ratio": 0.0}

MOST_PROPOSED = 64  # genomes of a family's front


class CostTable(NamedTuple):
    """Costs of C cells: genomes that differ only in what costs nothing are one.

    A genome is the cell at its family's offset, and each gene's stride further on.
    """

    space: Space
    families: list[ScoredCells]
    offsets: np.ndarray  # i32[families]
    strides: np.ndarray  # i32[families, G]
    costs: np.ndarray  # f64[C, 2], MiB and ms, inf where no model is
    over: np.ndarray  # f64[C], the larger cost over its limit, as a share; 0 if none
    feasible: int  # distinct models that the limits allow

    def cell(self, genome: jax.Array) -> jax.Array:
        """i32[G], valid -> i32[]."""
        family = self._family(genome)
        strides = jnp.asarray(self.strides)[family]
        return jnp.asarray(self.offsets)[family] + (strides * genome).sum()

    def excess(self, genome: jax.Array) -> jax.Array:
        """i32[G], valid -> f32[], how far the model is over the limits; 0 if allowed.

        Above 0 whenever a limit is broken, however little.
        """
        return jnp.asarray(self.over, jnp.float32)[self.cell(genome)]

    def costs_of(self, genomes: jax.Array) -> jax.Array:
        """i32[N, G], valid -> f32[N, 2], MiB and ms."""
        table = jnp.asarray(self.costs, jnp.float32)
        return table[jax.vmap(self.cell)(genomes)]

    def _family(self, genome: jax.Array) -> jax.Array | int:
        if "arch_type" not in self.space.genes:
            return 0
        return genome[self.space.genes.index("arch_type")]


def cost_table(
    space: Space,
    hardware: Hardware,
    latency: str,
    *,
    max_size: float,
    max_latency: float,
    tokens: float,
    **fields: Any,
) -> CostTable:
    """Scores a whole space, as `costs_of` scores a config.

    Args:
      space: see `Space`.
      hardware: whose latency is predicted.
      latency: estimate | prefill | decode.
      max_size: MiB.
      max_latency: ms.
      tokens: of the training, for the predicted loss.
      **fields: of the configs that are no genes: vocab_size, max_seq_length.
    """
    use = Use(hardware=hardware, training_tokens=tokens, law=DEFAULT_LAW)
    names = ("size", _LATENCIES[latency], "loss")
    families = score_space(space, names, use, **fields)
    costs, offsets, strides, begin = [], [], [], 0
    for one in families:
        dense = np.full((int(np.prod(one.shape)), 2), np.inf)
        dense[one.cells] = one.values[:, :2]
        costs.append(dense)
        offsets.append(begin)
        strides.append(_strides(one.shape))
        begin += len(dense)
    every = np.concatenate(costs)
    limits = np.asarray((max_size, max_latency))
    broken = (every > limits).any(axis=1)
    over = (np.minimum(every, 1e100) / limits - 1).max(axis=1)
    return CostTable(
        space=space,
        families=families,
        offsets=np.asarray(offsets, np.int32),
        strides=np.asarray(strides, np.int32),
        costs=every,
        over=np.where(broken, np.clip(over, 1e-6, 1e6), 0.0),
        feasible=sum(
            int(one.genomes[(one.values[:, :2] <= limits).all(axis=1)].sum())
            for one in families
        ),
    )


def limits_in_words(max_size: float, max_latency: float) -> str:
    """What the limits are, for a line."""
    size = f"{max_size:g} MiB"
    return size if max_latency == math.inf else f"{size} and {max_latency:g} ms"


def front_genomes(table: CostTable) -> list[np.ndarray]:
    """The models that the limits allow on each family's front, by formulas alone.

    No other of its family is smaller, faster and predicted to be better. Genes that
    cost nothing are as in DEFAULTS, if they can be. Nothing is tied or pruned where a
    space leaves the choice: what that costs in quality no formula knows.

    Returns:
      For each family that is allowed, i32[N, G] canonical genomes: the one with the
      least predicted loss first, then always the one that differs most.
    """
    usual, genes = _usual(table.space), table.space.genes
    plain = [axis for axis in usual if genes[axis] in _PLAIN]
    found = []
    for one, offset in zip(table.families, table.offsets, strict=True):
        kept = np.flatnonzero(table.over[offset + one.cells] == 0)
        if not len(kept):
            continue
        for axis in plain:
            if one.shape[axis] > 1:
                choice = np.unravel_index(one.cells[kept], one.shape)[axis]
                alike = kept[choice == usual[axis]]
                kept = alike if len(alike) else kept
        front = kept[exact_front(one.values[kept])]
        order = spread_order(one.values[front][:, ::-1], MOST_PROPOSED)
        genomes = [one.grid.genome(one.place(row, usual)) for row in front[order]]
        found.append(np.stack(genomes))
    return found


def _usual(space: Space) -> dict[int, int]:
    """Axis -> the usual choice, of the genes that have it."""
    usual = {**DEFAULTS, **_PLAIN}
    return {
        axis: choices.index(usual[gene])
        for axis, (gene, choices) in enumerate(
            zip(space.genes, space.choices, strict=True)
        )
        if gene in usual and usual[gene] in choices
    }


def _strides(shape: tuple[int, ...]) -> list[int]:
    """In C order; 0 along an axis that costs do not depend on."""
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    return [
        int(stride) if length > 1 else 0
        for stride, length in zip(strides, shape, strict=True)
    ]
