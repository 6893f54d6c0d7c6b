"""Hard limits: no strategy asks what is not allowed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searching import Capped, answer, jitted, weigh

from jaxnas.pipeline.strategy import build_strategy
from search import STRATEGIES, limited, stratify, uniform, unlimited

SMALL = Capped(np.asarray([3, 6, 4, 5], np.int32), limit=9)
EVERY = np.stack([*map(np.ravel, np.indices(SMALL.cardinality))], axis=1).astype("i4")
VALID = EVERY[EVERY.sum(axis=1) <= 9]
TARGET = np.asarray([2, 1, 3, 0], np.int32)
FAMILY = 0  # the gene that repair keeps


def by_table(table):
    """The excess of a genome of SMALL, looked up in f32[360]."""
    steps = np.cumprod([1, *SMALL.cardinality[:0:-1]])[::-1].astype(np.int32)
    return lambda genome: jnp.asarray(table)[(genome * steps).sum()]


def random_limits(seed, share):
    """Excess by a rough surface over the genomes, of which that share is allowed."""
    rng = np.random.default_rng(seed)
    slope = EVERY @ rng.normal(size=4) + rng.normal(size=len(EVERY))
    within = np.isin(np.arange(len(EVERY)), np.flatnonzero(EVERY.sum(axis=1) <= 9))
    level = np.quantile(slope[within], share)
    table = (slope - level).astype(np.float32)
    return limited_by(table)


def only_three(seed):
    """Three allowed genomes, one of each family, and no slope towards them."""
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero((EVERY[:, FAMILY] == family) & (EVERY.sum(1) <= 9)))
        for family in range(3)
    ]
    table = np.ones(len(EVERY), np.float32)
    table[chosen] = 0
    return limited_by(table)


def limited_by(table):
    allowed = EVERY[(table <= 0) & (EVERY.sum(axis=1) <= 9)]
    first = [allowed[allowed[:, FAMILY] == family][:1] for family in range(3)]
    known = np.concatenate(first)
    return limited(SMALL, by_table(table), known, keep=FAMILY), set(map(tuple, allowed))


LIMITS = {
    "loose": functools.partial(random_limits, 0, 0.6),
    "tight": functools.partial(random_limits, 1, 0.05),
    "three": functools.partial(only_three, 2),
}


@functools.cache
def limits(name):
    return LIMITS[name]()


def tell_all(strategy, state, genomes, first_id):
    far = abs(genomes - TARGET[None]).sum(axis=1)
    rows = answer(np.zeros((len(genomes), 8), np.int32), first_id)
    objectives = np.stack([far, genomes.sum(axis=1)], axis=1).astype(np.float32)
    return strategy.tell(state, *rows._replace(genomes=genomes, objectives=objectives))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("which", LIMITS)
@pytest.mark.sweep(4)
def test_no_strategy_asks_what_is_not_allowed(name, which, key):
    """Not at the start, near seeds, among proposals, nor later; by any key."""
    genes, allowed = limits(which)
    strategy = jitted(
        build_strategy(
            name,
            genes,
            objectives=2,
            population=10,
            scalarize=weigh,
            ordered=np.asarray([False, True, True, True]),
            seeds=VALID[::40],
            stratum=FAMILY,
            proposals=VALID[::7],  # most of them are not allowed
            settings={"capacity": 64} if name == "predictor" else {},
        )
    )
    state = strategy.init(jax.random.key(1))
    # What an earlier run told lies outside.
    state = tell_all(strategy, state, VALID[:20], -20)
    for number, this in enumerate(jax.random.split(key, 8)):
        genomes = np.asarray(strategy.ask(this, state))
        assert set(map(tuple, genomes)) <= allowed
        state = tell_all(strategy, state, genomes, 10 * number)


@pytest.mark.parametrize("which", LIMITS)
def test_repair_keeps_what_is_allowed_and_makes_all_else_so(which):
    genes, allowed = limits(which)
    repaired = np.asarray(jax.jit(jax.vmap(genes.repair))(EVERY))
    assert set(map(tuple, repaired)) == allowed  # each repairs to itself
    was = np.asarray([tuple(genome) in allowed for genome in EVERY])
    np.testing.assert_array_equal(repaired[was], EVERY[was])
    valid = np.asarray(jax.vmap(genes.valid)(EVERY))
    np.testing.assert_array_equal(valid, was)
    inner = np.asarray(jax.vmap(SMALL.repair)(EVERY))
    np.testing.assert_array_equal(repaired[:, FAMILY], inner[:, FAMILY])


def test_a_repair_ends_just_within_the_limits():
    """Where one gene is enough, no gene could be one step nearer to the limit."""
    budget = 11.0
    weights = np.asarray([0.0, 3.0, 2.0, 1.0], np.float32)
    excess = lambda genome: (genome * weights).sum() - budget
    genes = limited(SMALL, excess, np.zeros((1, 4), np.int32))
    over = VALID[(VALID @ weights > budget)]
    repaired = np.asarray(jax.jit(jax.vmap(genes.repair))(over))
    cost = repaired @ weights
    assert (cost <= budget).all()
    one = (repaired != over).sum(axis=1) == 1
    assert one.mean() > 0.5
    for genome, before, found in zip(repaired[one], over[one], cost[one], strict=True):
        others = np.repeat(before[None], 18, axis=0)
        places = [(g, c) for g in range(4) for c in range(SMALL.cardinality[g])]
        for row, (gene, choice) in zip(others, places, strict=True):
            row[gene] = choice
        fits = (others @ weights <= budget) & (others.sum(axis=1) <= 9)
        assert found == (others[fits] @ weights).max(), genome


def test_shares_hold_where_each_choice_has_an_allowed_genome(key):
    for which in LIMITS:
        genes, _ = limits(which)
        draw, share = jax.random.split(jax.random.clone(key))
        drawn = jax.vmap(lambda key, genes=genes: uniform(key, genes))(
            jax.random.split(draw, 9)
        )
        shared = np.asarray(stratify(share, drawn, genes, FAMILY))
        assert np.bincount(shared[:, FAMILY]).tolist() == [3, 3, 3]


def test_what_is_not_a_number_is_not_allowed():
    excess = lambda genome: jnp.where(genome[1] > 0, jnp.nan, -1.0)
    genes = limited(SMALL, excess, np.zeros((1, 4), np.int32))
    repaired = np.asarray(jax.vmap(genes.repair)(VALID))
    assert (repaired[:, 1] == 0).all()
    np.testing.assert_array_equal(repaired[:, [0, 2, 3]], VALID[:, [0, 2, 3]])


def test_limits_come_off_again():
    genes, _ = limits("loose")
    assert unlimited(genes) is SMALL
    assert unlimited(SMALL) is SMALL
    twice = limited(genes, lambda genome: jnp.float32(0), genes.known)
    assert unlimited(twice) is SMALL


@pytest.mark.parametrize(
    ("known", "keep", "message"),
    [
        (
            np.asarray([[2, 5, 0, 0]]),
            None,
            r"known must be allowed, \[\[2, 5, 0, 0\]\]",
        ),
        (np.full((1, 4), 0.9), None, "known must hold integers, got float64"),
        (np.zeros((0, 4)), None, r"known must have shape \(K, 4\)"),
        (np.zeros((1, 3)), None, r"known must have shape \(K, 4\)"),
        (np.zeros((1, 4)), 4, "keep must be in 0 to 3, got 4"),
    ],
)
def test_wrong_limits_are_refused(known, keep, message):
    with pytest.raises(ValueError, match=message):
        limited(SMALL, lambda genome: genome.sum() - 5.0, known, keep=keep)
