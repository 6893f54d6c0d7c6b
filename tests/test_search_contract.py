"""One contract for every strategy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searching import (
    GENES,
    POPULATION,
    QUICK,
    answer,
    assert_valid,
    evaluate,
    generation,
    in_the_middle,
    jitted,
    some_rows,
    weigh,
)

from search import (
    STRATEGIES,
    Strategy,
    aging,
    genetic,
    local,
    nsga2,
    predictor,
    random_search,
    simulate,
)

BY_HAND = {
    "random": random_search(GENES, population=POPULATION),
    "genetic": genetic(GENES, scalarize=weigh, population=POPULATION),
    "nsga2": nsga2(
        GENES, objectives=2, population=POPULATION, ordered=np.arange(8) % 2 == 0
    ),
    "aging": aging(
        GENES, objectives=2, population=POPULATION, population_size=60, sample_size=5
    ),
    "local": local(GENES, objectives=2, population=POPULATION, archive=30),
    "predictor": predictor(GENES, objectives=2, population=POPULATION, capacity=256),
}
# Where each operation is compiled by itself, some strategies are enough each time.
BY_OPERATION = ("random", "genetic", "nsga2")
# The predictor compiles the longest by far: a few of the tests always hold it.
PREDICTOR = pytest.param("predictor", marks=pytest.mark.slow)
OTHERS = [name for name in BY_HAND if name != "predictor"]
JITTED = {name: jitted(strategy) for name, strategy in BY_HAND.items()}
# They remember who failed, so that it is not asked again.
REMEMBER_FAILURES = ("random", "local", "predictor")


@pytest.fixture(params=[*OTHERS, PREDICTOR])
def strategy(request):
    return JITTED[request.param]


def test_every_strategy_is_held_to_the_contract():
    assert BY_HAND.keys() == STRATEGIES.keys()
    assert all(isinstance(strategy, Strategy) for strategy in BY_HAND.values())


@pytest.mark.parametrize("generations", [0, 1, 3])
def test_asks_for_as_many_valid_genomes_each_time(strategy, key, generations):
    before, now = jax.random.split(key)
    state = in_the_middle(strategy, before, generations)
    for each in jax.random.split(now, 20):
        asked = strategy.ask(each, state)
        assert asked.shape == (POPULATION, 8)
        assert_valid(asked)


@pytest.mark.parametrize("generations", [0, 2])
@pytest.mark.parametrize("strategy", BY_HAND, indirect=True)
@pytest.mark.sweep(3)
def test_the_same_key_gives_the_same_search(strategy, key, generations):
    before, other, now = jax.random.split(key, 3)
    state = in_the_middle(strategy, before, generations)
    again = in_the_middle(strategy, jax.random.clone(before), generations)
    chex.assert_trees_all_equal(state, again)
    asked = strategy.ask(now, state)
    chex.assert_trees_all_equal(asked, strategy.ask(jax.random.clone(now), state))
    elsewhere = in_the_middle(strategy, other, generations)
    assert (asked != strategy.ask(jax.random.key(9), elsewhere)).any()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in BY_OPERATION))
        for name in BY_HAND
    ],
)
@pytest.mark.sweep(6)
def test_jit_changes_nothing(name, key):
    """Step by step each is compiled anew, fully: once, where it draws on its state."""
    before, now = jax.random.split(key)
    state = in_the_middle(JITTED[name], before)
    by_hand = generation(BY_HAND[name], state, jax.random.clone(now), 1000)
    strategy = JITTED[name]
    if name == "predictor":  # what it guesses is rounded as XLA optimises
        strategy = Strategy(*map(jax.jit, BY_HAND[name]))
    compiled = generation(strategy, state, now, 1000)
    chex.assert_trees_all_equal(by_hand, compiled)


@pytest.mark.parametrize("name", [*OTHERS, PREDICTOR])
@pytest.mark.sweep(5)
def test_searches_side_by_side_in_one_scan_equal_searches_by_hand(name):
    strategy, seeds, generations = JITTED[name], 3, 4
    run = lambda seed: simulate(
        BY_HAND[name], jax.random.key(seed), evaluate, generations
    )
    # The checker of key reuse cannot follow a scan over keys under vmap.
    with jax.debug_key_reuse(False):
        together = jax.jit(jax.vmap(run), compiler_options=QUICK)
        ends, histories = together(jnp.arange(seeds))
    for seed in range(seeds):
        for_init, for_asks = jax.random.split(jax.random.key(seed))
        state = strategy.init(for_init)
        for number, this in enumerate(jax.random.split(for_asks, generations)):
            state, genomes = generation(strategy, state, this, POPULATION * number)
            asked, told = (column[seed, number] for column in histories)
            chex.assert_trees_all_equal(asked, genomes)
            chex.assert_trees_all_equal(told, evaluate(genomes))
        end = jax.tree.map(lambda leaf, seed=seed: leaf[seed], ends)
        chex.assert_trees_all_equal(end, state)


@pytest.mark.parametrize("generations", [0, 2])
def test_the_order_of_telling_changes_nothing(strategy, key, generations):
    before, draw, shuffle = jax.random.split(key, 3)
    start = in_the_middle(strategy, before, generations)
    rows = some_rows(draw, 40, first_id=1000)
    whole = strategy.tell(start, *rows)
    shuffled = np.asarray(jax.random.permutation(shuffle, 40))
    for order in (np.arange(40)[::-1], shuffled):
        chex.assert_trees_all_equal(strategy.tell(start, *rows[order]), whole)


def test_rows_outside_the_mask_are_ignored(strategy, key):
    before, draw = jax.random.split(key)
    state = in_the_middle(strategy, before)
    rows = some_rows(draw, 40, first_id=1000)
    # As good as can be, if only they were looked at.
    wins = np.where(rows.mask[:, None], rows.objectives, np.float32(-1000))
    rows = rows._replace(objectives=wins)
    chex.assert_trees_all_equal(
        strategy.tell(state, *rows), strategy.tell(state, *rows[rows.mask])
    )
    nothing = rows._replace(mask=np.zeros(40, bool))
    chex.assert_trees_all_equal(strategy.tell(state, *nothing), state)


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.sweep(3)
def test_a_failure_displaces_nothing(name, key, column):
    """Nor does a row of which one objective could be measured, very low."""
    strategy = JITTED[name]
    before, draw = jax.random.split(key)
    state = in_the_middle(strategy, before)
    rows = some_rows(draw, 40, first_id=1000)._replace(mask=np.ones(40, bool))
    low = np.full((40, 2), -1000, np.float32)
    low[:, column] = np.nan
    told = strategy.tell(state, *rows._replace(objectives=low))
    if name in REMEMBER_FAILURES:
        nothing = np.full((40, 2), np.nan, np.float32)
        state = strategy.tell(state, *rows._replace(objectives=nothing))
    chex.assert_trees_all_equal(told, state)


def test_a_search_goes_on_while_everything_fails(strategy, key):
    fails = lambda genomes: np.full((POPULATION, 2), np.nan, np.float32)
    state = strategy.init(jax.random.key(1))
    drawn = []
    for number, each in enumerate(jax.random.split(key, 3)):
        drawn.append(np.asarray(strategy.ask(each, state)))
        rows = answer(drawn[-1], POPULATION * number)
        state = strategy.tell(state, *rows._replace(objectives=fails(drawn[-1])))
        assert_valid(drawn[-1])
    assert len(np.unique(np.concatenate(drawn), axis=0)) > 2.5 * POPULATION


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
@pytest.mark.parametrize("name", [name for name in BY_HAND if name != "genetic"])
def test_an_infinite_objective_is_a_failure(name, key, infinite):
    strategy = JITTED[name]
    start = strategy.init(jax.random.key(1))
    rows = some_rows(key, 40)._replace(mask=np.ones(40, bool))
    told = [
        strategy.tell(start, *rows._replace(objectives=np.full_like(o, value)))
        for o, value in ((rows.objectives, infinite), (rows.objectives, np.nan))
    ]
    chex.assert_trees_all_equal(*told)
