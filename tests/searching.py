"""A small space with a known optimum, and searches of it, for the tests."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from search import Strategy, uniform


class Capped(NamedTuple):
    """Valid where the genes sum to at most the limit."""

    cardinality: jax.Array
    limit: int

    def valid(self, genome):
        return genome.sum() <= self.limit

    def repair(self, genome):
        """Lowers the last genes until the sum fits."""
        sums = jnp.minimum(jnp.cumsum(genome), self.limit)
        return jnp.diff(sums, prepend=0).astype(jnp.int32)


GENES = Capped(np.full(8, 6, np.int32), limit=20)
TARGET = np.array([5, 0, 3, 2, 0, 4, 1, 3], np.int32)
POPULATION = 40


def evaluate(genomes):
    """i32[N, 8] -> f32[N, 2], whole numbers, so that sums of them are exact."""
    far = abs(genomes - TARGET[None]).sum(axis=1)
    objectives = far, genomes.sum(axis=1)
    numpy = np if isinstance(genomes, np.ndarray) else jnp
    return numpy.stack(objectives, axis=1).astype(np.float32)


def weigh(objectives):
    """Lowest at the target: a step away costs 4 and saves 1 at most."""
    return 4 * objectives[:, 0] + objectives[:, 1]


draw_many = jax.jit(jax.vmap(lambda key: uniform(key, GENES)))

# What runs for milliseconds need not be optimised for seconds.
QUICK = {"xla_backend_optimization_level": 0}


def jitted(strategy):
    """Compiled, quickly."""
    return Strategy(*(jax.jit(part, compiler_options=QUICK) for part in strategy))


class Rows(NamedTuple):
    """What is told of N individuals; NumPy slices it without compiling."""

    ids: np.ndarray
    genomes: np.ndarray
    objectives: np.ndarray
    mask: np.ndarray

    def __getitem__(self, index):
        return Rows(*(column[index] for column in tuple(self)))


def answer(genomes, first_id=0):
    ids = first_id + np.arange(len(genomes), dtype=np.int32)
    return Rows(ids, genomes, evaluate(genomes), np.ones(len(genomes), bool))


def some_rows(key, number, first_id=0):
    """Rows with repeated genomes, failures and rows to be ignored."""
    draw, chance = jax.random.split(key)
    few = np.asarray(draw_many(jax.random.split(draw, (number + 1) // 2)))
    told = answer(np.concatenate([few, few])[:number], first_id)
    chances = np.asarray(jax.random.uniform(chance, (number, 3)))
    return told._replace(
        objectives=np.where(chances[:, :2] < 0.2, np.nan, told.objectives),
        mask=chances[:, 2] < 0.8,
    )


def generation(strategy, state, key, first_id):
    genomes = strategy.ask(key, state)
    return strategy.tell(state, *answer(genomes, first_id)), genomes


def in_the_middle(strategy, key, generations=3):
    """A state that has been told of some generations, ids from 0."""
    state, first_id = strategy.init(jax.random.clone(key)), 0
    for each in jax.random.split(key, generations):
        state, genomes = generation(strategy, state, each, first_id)
        first_id += len(genomes)
    return state


def assert_valid(genomes, genes=GENES):
    genomes = np.asarray(genomes)
    assert genomes.dtype == np.int32
    assert ((genomes >= 0) & (genomes < genes.cardinality)).all()
    assert all(map(genes.valid, genomes))
