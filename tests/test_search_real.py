"""Operators of real genes, and the walk without repeats."""

import jax
import jax.numpy as jnp
import numpy as np
from searching import Capped

from search import polynomial, random_search, simulated_binary
from search.walk import draw_salts, genome_at

LOW, HIGH = np.float32([0, -2, 5]), np.float32([1, 3, 9])
FIRST, SECOND = np.float32([0.2, -2, 7]), np.float32([0.9, 3, 7])
MANY = 4000


def test_crossover_stays_within_bounds_and_keeps_what_parents_share(key):
    cross = lambda key: simulated_binary(key, FIRST, SECOND, LOW, HIGH, rate=1.0)
    children = np.asarray(jax.jit(jax.vmap(cross))(jax.random.split(key, MANY)))
    assert ((children >= LOW) & (children <= HIGH)).all()
    assert (children[:, 2] == 7).all()
    # Half of the genes are crossed, half of those lie by the second parent.
    near_second = np.abs(children[:, 0] - 0.9) < np.abs(children[:, 0] - 0.2)
    np.testing.assert_allclose(near_second.mean(), 0.25, atol=0.04)


def test_polynomial_mutation_stays_within_bounds_and_changes_at_its_rate(key):
    for rate in (0.0, 0.3, 1.0):
        change = lambda key, rate=rate: polynomial(key, FIRST, LOW, HIGH, rate=rate)
        found = np.asarray(jax.jit(jax.vmap(change))(jax.random.split(key, MANY)))
        key = jax.random.fold_in(jax.random.clone(key), 1)
        assert ((found >= LOW) & (found <= HIGH)).all()
        # At its bound the second gene can only move one way.
        share = (found != FIRST).mean(axis=0)[[0, 2]]
        np.testing.assert_allclose(share, rate, atol=0.04)


def test_a_fixed_gene_stays(key):
    low, high = jnp.array([0.0, 2.0]), jnp.array([1.0, 2.0])
    found = polynomial(key, jnp.array([0.5, 2.0]), low, high, rate=1.0)
    assert found[1] == 2.0
    assert jnp.isfinite(found).all()


def test_one_gene_is_walked_in_random_order(key):
    cardinality = np.asarray([1, 20, 1], np.int32)
    walk = jax.vmap(lambda place: genome_at(draw_salts(key, 3), place, cardinality))
    genomes = np.asarray(walk(jnp.arange(20)))
    assert sorted(genomes[:, 1].tolist()) == list(range(20))
    assert not genomes[:, [0, 2]].any()
    assert len(set(np.diff(genomes[:, 1]).tolist())) > 5


def test_random_search_repeats_nothing_before_all_were_asked(key):
    genes = Capped(np.asarray([3, 4, 1, 5, 2], np.int32), limit=6)
    every = np.stack(np.unravel_index(np.arange(120), genes.cardinality), axis=1)
    valid = int((every.sum(axis=1) <= 6).sum())
    strategy = random_search(genes, population=1)
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    state, asked = strategy.init(key), []
    for number in range(valid):
        genomes = ask(jax.random.key(1), state)
        asked.append(tuple(genomes[0].tolist()))
        rows = np.int32([number]), genomes, np.zeros((1, 2), np.float32)
        state = tell(state, *rows, np.ones(1, bool))
    assert len(set(asked)) == valid
    assert all(sum(genome) <= 6 for genome in asked)
