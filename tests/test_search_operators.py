"""Properties and statistics of the operators against known answers."""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searching import QUICK

from search import (
    elite,
    near,
    resample,
    smart,
    stratify,
    tournament,
    two_point,
    uniform,
)
from search.operators.select import repeated

RATES = (0.0, 0.3, 1.0)
MANY = 10_000


class Divisible(NamedTuple):
    """Valid where gene 1, counted from 1, divides gene 0."""

    cardinality: jax.Array

    def valid(self, genome):
        return (genome[0] + 1) % (genome[1] + 1) == 0

    def repair(self, genome):
        """Lowers gene 1 to the next divisor."""
        choice = jnp.arange(self.cardinality[1])
        fits = (choice <= genome[1]) & ((genome[0] + 1) % (choice + 1) == 0)
        return genome.at[1].set(jnp.where(fits, choice, 0).max().astype(jnp.int32))


class Free(NamedTuple):
    """Every genome is valid."""

    cardinality: jax.Array

    def valid(self, genome):
        return jnp.bool_(True)

    def repair(self, genome):
        return genome


class Lonely(Free):
    """Only the zeros are valid: too rare to be drawn."""

    def valid(self, genome):
        return (genome == 0).all()

    def repair(self, genome):
        return jnp.zeros_like(genome)


DIVISIBLE = Divisible(np.array([6, 6, 1, 4], np.int32))
SEEDS = jnp.array([[5, 2, 0, 3], [3, 1, 0, 0], [0, 0, 0, 1]], jnp.int32)


def over_keys(key, function, number=MANY):
    compiled = jax.jit(jax.vmap(function), compiler_options=QUICK)
    return np.asarray(compiled(jax.random.split(key, number)))


def assert_valid(genomes, genes):
    assert genomes.dtype == np.int32
    assert (genomes >= 0).all()
    assert (genomes < genes.cardinality).all()
    assert np.asarray(jax.vmap(genes.valid)(genomes)).all()


def assert_frequencies(outcomes, expected):
    """Pearson's chi-square stays within five deviations of its mean.

    outcomes: hashables; expected: {outcome: probability}, the only ones allowed.
    """
    outcomes = list(outcomes)
    counts = dict.fromkeys(expected, 0)
    for outcome in outcomes:
        counts[outcome] += 1
    mean = {outcome: p * len(outcomes) for outcome, p in expected.items()}
    statistic = sum((counts[o] - mean[o]) ** 2 / mean[o] for o in expected)
    freedom = len(expected) - 1
    assert statistic <= freedom + 5 * math.sqrt(2 * freedom)


def rows(genomes):
    return map(tuple, genomes.tolist())


OPERATORS = {
    "uniform": lambda key, rate: uniform(key, DIVISIBLE),
    "near": lambda key, rate: near(key, DIVISIBLE, SEEDS, rate),
    "resample": lambda key, rate: resample(key, SEEDS[0], DIVISIBLE, rate),
    # 6 heads of the one and 4 of the other: most crossings need a repair.
    "two_point": lambda key, rate: two_point(key, *SEEDS[:2], DIVISIBLE, rate),
}


@functools.cache
def compiled(name):
    """(keys, rate) -> a genome for each key."""
    return jax.jit(jax.vmap(OPERATORS[name], (0, None)), compiler_options=QUICK)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", OPERATORS)
def test_what_an_operator_returns_is_always_valid(key, name, rate):
    drawn = np.asarray(compiled(name)(jax.random.split(key, MANY), rate))
    assert_valid(drawn, DIVISIBLE)


@pytest.mark.parametrize("name", OPERATORS)
def test_jit_and_vmap_change_nothing(key, name):
    keys = jax.random.split(key, MANY)
    together = compiled(name)(jax.random.clone(keys), 0.3)
    for number in (0, 1, 2, 3):
        alone = OPERATORS[name](keys[number], 0.3)
        np.testing.assert_array_equal(together[number], alone)


def test_uniform_gives_every_valid_genome_the_same_chance(key):
    space = itertools.product(*map(range, DIVISIBLE.cardinality.tolist()))
    valid = [g for g in space if (g[0] + 1) % (g[1] + 1) == 0]
    drawn = np.asarray(compiled("uniform")(jax.random.split(key, MANY), 0.0))
    assert_frequencies(rows(drawn), dict.fromkeys(valid, 1 / len(valid)))


def test_uniform_repairs_where_it_finds_nothing_valid(key):
    genes = Lonely(np.full(3, 1000, np.int32))
    assert not over_keys(key, lambda key: uniform(key, genes), 100).any()


def test_near_picks_each_seed_with_the_same_chance(key):
    drawn = np.asarray(compiled("near")(jax.random.split(key, MANY), 0.0))
    assert_frequencies(rows(drawn), dict.fromkeys(rows(SEEDS), 1 / 3))


@pytest.mark.parametrize("number", [1, 31])
def test_smart_draws_every_second_one_near_the_seeds(key, number):
    genes = Divisible(np.full(20, 6, np.int32))
    seed = jnp.zeros((1, 20), jnp.int32)
    draw = lambda key: smart(key, genes, seed, 0.1, number)
    drawn = np.asarray(jax.jit(draw, compiler_options=QUICK)(key))
    assert drawn.shape == (number, 20)
    assert_valid(drawn, genes)
    is_near = (drawn != 0).sum(axis=1) < 9  # expected: 2 near the seed, 16 anywhere
    assert is_near.tolist() == [place % 2 == 1 for place in range(number)]


@pytest.mark.parametrize("number", [4, 12, 14])
def test_stratify_gives_every_choice_its_share(key, number):
    def shares(key):
        draw, share = jax.random.split(key)
        keys = jax.random.split(draw, number)
        drawn = jax.vmap(lambda key: uniform(key, DIVISIBLE))(keys)
        return stratify(share, drawn, DIVISIBLE, 0)

    populations = over_keys(key, shares, 300)
    assert_valid(populations.reshape(-1, 4), DIVISIBLE)
    counts = np.stack([np.bincount(p[:, 0], minlength=6) for p in populations])
    assert (counts.sum(axis=1) == number).all()
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    # Neither a choice nor a row is favoured.
    assert (counts.mean(axis=0) > 0.7 * number / 6).all()
    assert all(len(set(populations[:, row, 0])) == 6 for row in range(number))


def test_stratify_keeps_the_other_genes_of_what_stays_valid(key):
    genes = Free(np.array([3, 50, 50], np.int32))
    genomes = jnp.asarray([[0, place, place + 1] for place in range(9)], jnp.int32)
    shared = stratify(key, genomes, genes, 0)
    np.testing.assert_array_equal(shared[:, 1:], genomes[:, 1:])


def test_resample_at_rate_one_moves_every_gene_anywhere_else(key):
    genes = Free(np.array([2, 3, 1, 5], np.int32))
    genome = jnp.array([1, 1, 0, 4], jnp.int32)
    drawn = over_keys(key, lambda key: resample(key, genome, genes, 1.0), 10_000)
    for gene, cardinality in enumerate(genes.cardinality.tolist()):
        others = set(range(cardinality)) - {int(genome[gene])} or {0}
        expected = dict.fromkeys(others, 1 / len(others))
        assert_frequencies(drawn[:, gene].tolist(), expected)


def test_resample_changes_each_gene_at_its_rate(key):
    genes = Free(np.full(8, 4, np.int32))
    genome = jnp.arange(8, dtype=jnp.int32) % 4
    rates = np.repeat(np.float32([0.0, 0.05, 0.3, 0.9]), 10_000)
    drawn = jax.jit(jax.vmap(lambda key, rate: resample(key, genome, genes, rate)))(
        jax.random.split(key, len(rates)), rates
    )
    changed = np.asarray(drawn) != np.asarray(genome)
    for rate in np.unique(rates):
        share = changed[rates == rate].mean(axis=0)
        tolerance = 5 * math.sqrt(rate * (1 - rate) / 10_000)
        np.testing.assert_allclose(share, rate, rtol=0, atol=tolerance)


def segments(length):
    """Every segment of at least one gene, as a mask of zeros and ones."""
    for start, end in itertools.combinations(range(length + 1), 2):
        yield tuple(int(start <= gene < end) for gene in range(length))


@functools.cache
def crossing(length):
    """(keys, first, second, rate) -> a child for each key; genes below 50."""
    genes = Free(np.full(length, 50, np.int32))
    cross = lambda key, first, second, rate: two_point(key, first, second, genes, rate)
    return jax.jit(jax.vmap(cross, (0, None, None, None)))


@pytest.mark.parametrize(("length", "rate"), [(1, 0.7), (5, 0.7), (5, 1.0)])
def test_two_point_gives_every_segment_the_same_chance(key, length, rate):
    """And keeps the first parent where it does not cross."""
    first, second = np.zeros(length, np.int32), np.ones(length, np.int32)
    keys = jax.random.split(key, MANY)
    children = crossing(length)(keys, first, second, rate)
    chance = dict.fromkeys(segments(length), 2 * rate / (length * (length + 1)))
    if rate < 1:
        chance[tuple(first.tolist())] = 1 - rate
    assert_frequencies(rows(children), chance)


def test_two_point_at_rate_zero_is_the_first_parent(key):
    children = compiled("two_point")(jax.random.split(key, MANY), 0.0)
    np.testing.assert_array_equal(children, np.tile(SEEDS[0], (MANY, 1)))


def test_two_point_takes_each_gene_from_a_parent_at_its_place(key):
    parents, crosses = jax.random.split(key)
    first, second = np.asarray(jax.random.randint(parents, (2, 5), 0, 50, jnp.int32))
    children = crossing(5)(jax.random.split(crosses, MANY), first, second, 0.7)
    masks = [np.zeros(5, int), *map(np.array, segments(5))]
    allowed = {tuple(np.where(mask, second, first).tolist()) for mask in masks}
    assert set(rows(children)) == allowed


FAILURES = (np.nan, np.inf, -np.inf)


def test_elite_sorts_by_loss_then_id_and_failures_last():
    losses = jnp.array([2.0, np.nan, 1.0, -np.inf, 2.0, np.inf, -3.0])
    ids = jnp.array([9, 0, 4, 1, 3, 2, 8], jnp.int32)
    assert elite(losses, ids, 7).tolist() == [6, 2, 4, 0, 1, 3, 5]
    assert elite(losses, ids, 3).tolist() == [6, 2, 4]


@functools.cache
def winners(k):
    """(keys, losses) -> a winner for each key."""
    return jax.jit(jax.vmap(lambda key, losses: tournament(key, losses, k), (0, None)))


@pytest.mark.parametrize("k", [1, 3, 12])
def test_tournament_is_won_as_often_as_the_formula_says(key, k):
    losses = np.array([3, 1, 7, 0, 2, 5, 4, 6], np.float32)
    wins = winners(k)(jax.random.split(key, MANY), losses)
    drawn = min(k, 8)
    chance = {
        index: math.comb(7 - int(better), drawn - 1) / math.comb(8, drawn)
        for index, better in enumerate(losses)
    }
    assert_frequencies(wins.tolist(), {i: p for i, p in chance.items() if p})


def test_tournament_passes_over_failures(key):
    losses = np.array([*FAILURES, 0, 1, 2, 3, np.nan], np.float32)
    wins = winners(3)(jax.random.split(key, MANY), losses)
    assert_frequencies(wins.tolist(), {3: 3 / 4, 4: 1 / 4})


def test_tournament_among_failures_only_stays_in_bounds(key):
    losses = np.array([*FAILURES, *FAILURES, np.nan, np.nan], np.float32)
    wins = winners(3)(jax.random.split(key, MANY), losses)
    assert set(wins.tolist()) <= set(range(8))


def test_tournament_gives_ties_the_same_chance(key):
    wins = winners(3)(jax.random.split(key, MANY), np.ones(8, np.float32))
    assert_frequencies(wins.tolist(), dict.fromkeys(range(8), 1 / 8))


def test_repeated_spares_the_best_copy_then_the_lowest_id():
    genomes = jnp.array([[1, 2], [2, 1], [1, 2], [1, 2], [0, 0], [2, 1], [0, 0]])
    losses = jnp.array([5.0, np.nan, 3.0, 3.0, np.inf, 9.0, np.nan])
    ids = jnp.array([0, 1, 3, 2, 5, 6, 4], jnp.int32)
    found = repeated(genomes, losses, ids).tolist()
    assert found == [True, True, True, False, True, False, False]
