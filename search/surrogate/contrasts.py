"""What each gene adds, and what each two add together, as columns of numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BENT = 0.4  # an ordered gene's next power counts this much of the one before
POWERS = 3  # of an ordered gene at most


class Effects(NamedTuple):
    """The columns of a regression on genomes: main effects, then pairs.

    Each gene has contrasts over its choices, of mean 0. Ordered genes have the
    first orthogonal polynomials, less of each next one, for what comes in an order
    seldom has corners; the others have all contrasts alike.
    """

    table: np.ndarray  # f32[G, C, E], what a choice puts into each main column
    gene: np.ndarray  # i32[E], whose column it is
    pairs: np.ndarray  # i32[2, Q], the columns of different genes

    def main(self, genomes: jax.Array) -> jax.Array:
        """i32[N, G] -> f32[N, E]."""
        index = jnp.arange(len(self.table))
        rows = lambda genome: jnp.asarray(self.table)[index, genome].sum(axis=0)
        return jax.vmap(rows)(genomes)

    def design(self, genomes: jax.Array) -> jax.Array:
        """i32[N, G] -> f32[N, 1 + E + Q]: a one, main effects, their products."""
        main = self.main(genomes)
        both = main[:, self.pairs[0]] * main[:, self.pairs[1]]
        return jnp.concatenate([jnp.ones_like(main[:, :1]), main, both], axis=1)

    def apply(self, weights: jax.Array, main: jax.Array) -> jax.Array:
        """The design times weights f32[1 + E + Q], from f32[N, E] -> f32[N]."""
        columns = main.shape[1]
        table = jnp.zeros((columns, columns), main.dtype)
        table = table.at[tuple(self.pairs)].set(weights[1 + columns :])
        linear = weights[None, 1 : 1 + columns] + main @ table
        return weights[0] + (linear * main).sum(axis=1)


def effects(cardinality: np.ndarray, ordered: np.ndarray) -> Effects:
    """The effects of genes with i32[G] choices each, bool[G] of them in an order."""
    blocks = [
        _powers(choices) if in_order else _contrasts(choices)
        for choices, in_order in zip(cardinality, ordered, strict=True)
    ]
    gene = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks])
    table = np.zeros((len(blocks), max(cardinality), len(gene)), np.float32)
    for number, block in enumerate(blocks):
        table[number, : len(block), gene == number] = block.T
    first, second = np.triu_indices(len(gene), 1)
    apart = gene[first] != gene[second]
    return Effects(table, gene, np.stack([first[apart], second[apart]]))


def _contrasts(choices: int) -> np.ndarray:
    """f64[choices, choices - 1], columns of mean 0 and mean square 1."""
    steps = np.tril(np.ones((choices, choices)), -1)[:, : choices - 1]
    return _orthonormal(steps)


def _powers(choices: int) -> np.ndarray:
    """f64[choices, K], orthogonal polynomials without the constant."""
    values = np.linspace(-1, 1, choices)[:, None]
    powers = np.arange(1, min(POWERS, choices - 1) + 1)
    return _orthonormal(values**powers) * BENT ** (powers - 1.0)


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Gram-Schmidt after the constant, to mean square 1."""
    ones = np.ones((len(columns), 1))
    basis, _ = np.linalg.qr(np.concatenate([ones, columns], axis=1))
    return basis[:, 1:] * np.sqrt(len(columns))
