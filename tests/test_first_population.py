"""First populations: what is proposed, what is drawn of all sizes, fronts as lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searching import GENES, QUICK, answer, assert_valid, jitted, weigh

from jaxnas.pipeline.strategy import build_strategy
from search import spread, spread_order, uniform
from search.operators.initial_population import first_population

ORDERED = np.ones(8, bool)
LIST = np.asarray([[n, 0, n % 3, 0, 0, n // 2, 0, 1] for n in range(6)], np.int32)
FAMILY = 2  # LIST goes round its first three choices


def drawn_by(first, key, told=None):
    call = jax.jit(first, compiler_options=QUICK)
    return np.asarray(call(key) if told is None else call(key, told))


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (0.5, 4), (1.0, 6)])
def test_proposals_come_first_and_in_their_order(key, share, number):
    first = first_population(
        GENES, 8, seeds=None, stratum=None, rate=0.1, proposals=LIST, share=share
    )
    genomes = drawn_by(first, key)
    assert_valid(genomes)
    np.testing.assert_array_equal(genomes[:number], LIST[:number])
    # What is left out is not proposed again; what is drawn takes its place.
    later = drawn_by(first, jax.random.clone(key), np.arange(6) < 4)
    left = LIST[4:][:number]
    np.testing.assert_array_equal(later[: len(left)], left)
    assert len(np.unique(later, axis=0)) == 8


def test_proposals_count_towards_the_shares(key):
    first = first_population(
        GENES,
        12,
        seeds=None,
        stratum=FAMILY,
        rate=0.1,
        ordered=ORDERED,
        proposals=LIST[np.asarray([0, 3, 1, 2, 4, 5])],
        share=1.0,
    )
    genomes = drawn_by(first, key)
    assert np.bincount(genomes[:, FAMILY]).tolist() == [2] * 6
    assert set(map(tuple, LIST)) <= set(map(tuple, genomes))
    crowded = np.repeat(LIST[:1], 6, axis=0)
    crowded[:, 0] = np.arange(6)  # all of one family: two fit
    first = first_population(
        GENES, 12, seeds=None, stratum=FAMILY, rate=0.1, proposals=crowded, share=1.0
    )
    genomes = drawn_by(first, jax.random.clone(key))
    np.testing.assert_array_equal(genomes[:2], crowded[:2])
    assert np.bincount(genomes[:, FAMILY]).tolist() == [2] * 6


def test_what_is_not_valid_is_not_proposed(key):
    wrong = np.full((1, 8), 5, np.int32)  # sums to 40
    first = first_population(
        GENES,
        6,
        seeds=None,
        stratum=None,
        rate=0.1,
        proposals=np.concatenate([wrong, LIST]),
        share=1.0,
    )
    np.testing.assert_array_equal(drawn_by(first, key), LIST)


@pytest.mark.parametrize("proposals", [np.zeros((2, 3), np.int32), np.full((1, 8), 9)])
def test_wrong_proposals_are_refused(proposals):
    with pytest.raises(ValueError, match="proposals must"):
        first_population(
            GENES, 6, seeds=None, stratum=None, rate=0.1, proposals=proposals
        )


@pytest.mark.parametrize(
    "name",
    [
        "genetic",
        "nsga2",
        "aging",
        "local",
        pytest.param("predictor", marks=pytest.mark.slow),
    ],
)
def test_every_strategy_begins_with_the_proposals(name, key):
    """A strategy that draws first populations again goes on through them."""
    strategy = jitted(
        build_strategy(
            name,
            GENES,
            objectives=2,
            population=4,
            scalarize=weigh,
            ordered=ORDERED,
            proposals=LIST,
            settings={"share": 0.5},
        )
    )
    begin, after = jax.random.split(key)
    state = strategy.init(jax.random.key(1))
    asked = np.asarray(strategy.ask(begin, state))
    np.testing.assert_array_equal(asked[:2], LIST[:2])
    if name in ("aging", "predictor"):
        state = strategy.tell(state, *answer(asked))
        np.testing.assert_array_equal(strategy.ask(after, state)[:2], LIST[2:4])


def test_spread_draws_small_and_large_genomes_as_often_as_others(key):
    class Free:
        cardinality = np.full(16, 5, np.int32)
        valid = staticmethod(lambda genome: jnp.bool_(True))
        repair = staticmethod(lambda genome: genome)

    ordered = np.arange(16) < 12
    keys = jax.random.split(key, 3000)
    wide = np.asarray(jax.vmap(lambda key: spread(key, Free, ordered))(keys))
    plain = np.asarray(jax.vmap(lambda key: uniform(key, Free))(jax.random.clone(keys)))
    size = wide[:, :12].mean(axis=1) / 4
    narrow = plain[:, :12].mean(axis=1) / 4
    assert np.mean((size < 0.25) | (size > 0.75)) > 0.3
    assert np.mean((narrow < 0.25) | (narrow > 0.75)) < 0.02
    # Genes without an order know nothing of it, and each choice comes up everywhere.
    for gene in range(12, 16):
        assert abs(np.corrcoef(wide[:, gene], size)[0, 1]) < 0.1
    counts = np.stack([np.bincount(column, minlength=5) for column in wide.T])
    assert (counts > 300).all()


@pytest.mark.parametrize("objectives", [2, 3])
def test_every_beginning_of_a_thinned_list_is_spread(objectives):
    rng = np.random.default_rng(0)
    points = rng.random((200, objectives)) * [1000.0, *[0.1] * (objectives - 1)]
    order = spread_order(points)
    assert sorted(order) == list(range(200))
    np.testing.assert_array_equal(spread_order(points, 20), order[:20])
    scaled = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    between = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    for number in (2, 5, 20, 60):
        chosen = order[:number]
        reach = between[chosen].min(axis=0).max()
        # Gonzalez: no two of the chosen are nearer than the farthest of the others.
        apart = between[np.ix_(chosen, chosen)] + 9 * np.eye(number)
        assert apart.min() >= reach - 1e-12


def test_thinning_puts_equal_rows_last_and_refuses_what_failed():
    points = np.asarray([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.4, 0.4]])
    assert spread_order(points).tolist() == [0, 2, 3, 1]
    assert spread_order(np.zeros((0, 2))).tolist() == []
    with pytest.raises(ValueError, match="must be finite"):
        spread_order(np.asarray([[np.nan, 1.0]]))
