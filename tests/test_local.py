"""What local search and aging evolution add to the contract of all strategies."""

import jax
import jax.numpy as jnp
import numpy as np
from searching import answer, jitted
from test_predictor import Free

from search import aging, local
from search.individuals import Individuals
from search.strategies.nsga2 import new_first

CARDINALITY = np.asarray([6, 2, 2, 2], np.int32)


def told(strategy, genomes):
    """The state after these were told, the more the better in both objectives."""
    genomes = np.asarray(genomes, np.int32)
    rows = answer(np.zeros((len(genomes), 8), np.int32))
    objectives = np.stack([-genomes.sum(1), genomes[:, 0]], 1).astype(np.float32)
    state = strategy.init(jax.random.key(0))
    return strategy.tell(state, rows.ids, genomes, objectives, rows.mask)


def test_no_neighbour_is_asked_twice(key):
    strategy = jitted(local(Free(CARDINALITY), objectives=2, population=8))
    state = told(strategy, [[0, 0, 0, 0], [1, 0, 0, 0]])
    genomes = np.asarray(strategy.ask(key, state))
    assert len(np.unique(genomes, axis=0)) == 8


def test_local_asks_canonical_genomes_that_were_never_told(key):
    """The last gene is not used where the first is 0."""

    def canonical(genome):
        return genome.at[3].set(jnp.where(genome[0] == 0, 0, genome[3]))

    strategy = local(Free(CARDINALITY), objectives=2, population=6, canonical=canonical)
    state = told(strategy, [[0, 0, 0, 0]])
    for each in jax.random.split(key, 5):
        genomes = np.asarray(strategy.ask(each, state))
        # Two of the other genes, and five choices of the first.
        assert len(np.unique(genomes, axis=0)) == 6
        assert genomes.any(axis=1).all()
        assert (genomes[genomes[:, 0] == 0, 3] == 0).all()


def test_a_free_place_is_no_genome_that_was_told(key):
    proposals = jnp.asarray([[0, 0, 0, 0], [1, 1, 1, 1]], jnp.int32)
    strategy = aging(
        Free(CARDINALITY), objectives=2, population=4, proposals=proposals, share=1.0
    )
    state = told(strategy, [[1, 1, 1, 1]])
    genomes = np.asarray(strategy.ask(key, state))
    assert not genomes[0].any()  # the only proposal that was not told


def test_a_child_of_zeros_is_as_new_as_any():
    genomes = jnp.asarray([[1, 0, 0, 0], [0, 0, 0, 0]], jnp.int32)
    ids = jnp.asarray([0, 2**31 - 1], jnp.int32)  # the second place is free
    state = Individuals(genomes, jnp.zeros((2, 2)), ids)
    children = jnp.asarray([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], jnp.int32)
    found = new_first(state, children)
    np.testing.assert_array_equal(found, children[jnp.asarray([0, 2, 1])])
