"""What each strategy adds to the contract that all of them keep."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searching import (
    GENES,
    POPULATION,
    TARGET,
    answer,
    assert_valid,
    draw_many,
    evaluate,
    generation,
    in_the_middle,
    jitted,
    some_rows,
    weigh,
)

from search import genetic

JITTED = {"genetic": jitted(genetic(GENES, scalarize=weigh, population=POPULATION))}


@pytest.mark.parametrize("generations", [0, 2])
def test_the_order_and_the_pieces_of_telling_change_nothing(key, generations):
    strategy = JITTED["genetic"]
    before, draw, shuffle = jax.random.split(key, 3)
    start = in_the_middle(strategy, before, generations)
    rows = some_rows(draw, 40, first_id=1000)
    whole = strategy.tell(start, *rows)
    shuffled = np.asarray(jax.random.permutation(shuffle, 40))
    for order, pieces in {
        "reversed": [np.arange(40)[::-1]],
        "shuffled": [shuffled],
        "in pieces": np.split(np.arange(40), 4),
        "shuffled, in pieces": np.split(shuffled, 4),
        "one by one": np.split(np.arange(40), 40),
        "shuffled, one by one": np.split(shuffled, 40),
        "twice": [shuffled, np.arange(40)],
        "twice at once": [np.concatenate([shuffled, shuffled])],
    }.items():
        state = start
        for piece in pieces:
            state = strategy.tell(state, *rows[piece])
        chex.assert_trees_all_equal(state, whole, custom_message=order)


def test_genetic_keeps_the_best_distinct_genomes(key):
    """Against a plain Python one, where copies of a genome differ in their loss."""
    draw, noise = jax.random.split(key)
    rows = some_rows(draw, 40)
    noise = np.asarray(jax.random.randint(noise, (40, 2), 0, 4), np.float32)
    rows = rows._replace(objectives=rows.objectives + noise)
    best = {}
    for number, genome, objective, counts in zip(*rows, strict=True):
        if counts and not np.isnan(objective).any():
            entry = (float(4 * objective[0] + objective[1]), int(number))
            best[tuple(genome)] = min(entry, best.get(tuple(genome), entry))
    expected = sorted((*entry, genome) for genome, entry in best.items())[:8]
    losses, ids, genomes = zip(*expected, strict=True)
    for pieces in (1, 4):
        state = JITTED["genetic"].init(jax.random.key(1))
        for piece in np.split(np.arange(40)[::-1], pieces):
            state = JITTED["genetic"].tell(state, *rows[piece])
        assert state.losses.tolist() == list(losses)
        assert state.ids.tolist() == list(ids)
        np.testing.assert_array_equal(state.genomes, np.array(genomes))


def test_genetic_never_loses_its_best(key):
    strategy = JITTED["genetic"]
    state, best = strategy.init(jax.random.key(1)), np.inf
    for number, each in enumerate(jax.random.split(key, 8)):
        state, genomes = generation(strategy, state, each, POPULATION * number)
        best = min(best, float(weigh(evaluate(genomes)).min()))
        assert float(state.losses[0]) == best


@pytest.mark.parametrize(
    ("population", "share", "survivors"),
    [(50, 0.2, 10), (30, 0.1, 3), (50, 0.0, 2), (1, 0.2, 1), (7, 1.0, 7)],
)
def test_genetic_keeps_its_share_and_two_where_it_can(population, share, survivors):
    sizes = {"population": population, "elite_share": share}
    seeds = TARGET[None]
    strategy = genetic(GENES, scalarize=weigh, seeds=seeds, **sizes)
    state = jax.eval_shape(strategy.init, jax.random.key(0))
    assert state.genomes.shape == (survivors, 8)
    asked = jax.eval_shape(strategy.ask, jax.random.key(0), state)
    assert asked.shape == (population, 8)


def test_genetic_breeds_only_what_succeeded(key):
    sizes = {"population": POPULATION, "mutation_rate": 0.0, "crossover_rate": 1.0}
    strategy = jitted(genetic(GENES, scalarize=weigh, **sizes))
    parents = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [5, 3, 0, 0, 0, 3, 0, 3]], np.int32)
    rows = answer(parents)
    lone = strategy.tell(strategy.init(key), *rows[:1])
    children = np.asarray(strategy.ask(jax.random.key(1), lone))
    assert (children == 1).all()
    # Of two the better always wins, and the other gives each child something.
    couple = strategy.tell(lone, *rows[1:])
    children = np.asarray(strategy.ask(jax.random.key(2), couple))
    given = children == parents[0]
    assert (given | (children == parents[1])).all()
    assert given.any(axis=0).all()
    assert given.any(axis=1).all()
    assert not given.all(axis=0).any()


def test_genetic_starts_afresh_while_everything_fails(key):
    strategy = JITTED["genetic"]
    start = strategy.init(jax.random.key(1))
    asked = strategy.ask(key, start)
    failed = answer(asked)._replace(
        objectives=np.full((POPULATION, 2), np.nan, np.float32)
    )
    state = strategy.tell(start, *failed)
    again = strategy.ask(jax.random.clone(key), state)
    chex.assert_trees_all_equal(asked, again)
    others = strategy.ask(jax.random.key(2), state)
    assert_valid(others)
    assert len(np.unique(others, axis=0)) > 30


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_genetic_takes_a_loss_that_is_not_finite_for_a_failure(key, loss):
    strategy = jitted(genetic(GENES, scalarize=lambda o: jnp.full(len(o), loss)))
    start = strategy.init(jax.random.key(1))
    chex.assert_trees_all_equal(strategy.tell(start, *some_rows(key, 40)), start)


def test_genetic_takes_any_objective_that_is_nan_for_a_failure(key):
    strategy = jitted(genetic(GENES, scalarize=lambda o: o[:, 0]))
    start, rows = strategy.init(jax.random.key(1)), some_rows(key, 40)
    failed = rows._replace(objectives=rows.objectives * np.float32([[1, np.nan]]))
    chex.assert_trees_all_equal(strategy.tell(start, *failed), start)


def test_genetic_draws_half_of_the_first_population_near_its_seeds(key):
    seeds = jnp.asarray([TARGET, [1, 2, 3, 0, 1, 2, 3, 0]])
    strategy = jitted(
        genetic(GENES, scalarize=weigh, population=21, mutation_rate=0.0, seeds=seeds)
    )
    asked = strategy.ask(key, strategy.init(jax.random.key(1)))
    is_seed = [row in seeds.tolist() for row in asked.tolist()]
    assert is_seed == [place % 2 == 1 for place in range(21)]


def test_genetic_shares_the_first_population_among_the_choices_of_a_gene(key):
    seeds = jnp.asarray([TARGET])
    arguments = {"scalarize": weigh, "population": 14, "seeds": seeds, "stratum": 2}
    strategy = jitted(genetic(GENES, **arguments))
    fresh, later = jax.random.split(key)
    start = strategy.init(jax.random.key(1))
    asked = strategy.ask(fresh, start)
    assert_valid(asked)
    assert sorted(np.bincount(asked[:, 2])) == [2, 2, 2, 2, 3, 3]
    # Later ones are bred.
    state = strategy.tell(start, *answer(np.asarray([TARGET])))
    bred = np.asarray(strategy.ask(later, state))
    assert len(np.bincount(bred[:, 2])) < 6 or np.bincount(bred[:, 2]).max() > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population": 0}, "population must be at least 1, got 0"),
        ({"tournament_size": 0}, "tournament_size must be at least 1, got 0"),
        ({"elite_share": 1.5}, r"elite_share must be in \[0, 1\], got 1.5"),
        ({"crossover_rate": -0.1}, r"crossover_rate must be in \[0, 1\], got -0.1"),
        ({"mutation_rate": float("nan")}, r"mutation_rate must be in .* got nan"),
        ({"seeds": np.zeros(8, int)}, r"seeds must have shape \(S, 8\).*got \(8,\)"),
        ({"seeds": np.zeros((0, 8), int)}, r"S at least 1, got \(0, 8\)"),
        ({"seeds": np.zeros((2, 5), int)}, r"seeds must .*got \(2, 5\)"),
        ({"seeds": np.zeros((2, 8))}, "seeds must be integers, got float64"),
        ({"seeds": np.full((1, 8), 6)}, "seeds must .* below the cardinality"),
        ({"seeds": np.full((1, 8), -1)}, "seeds must be at least 0"),
        ({"stratum": 8}, "stratum must be in 0 to 7, got 8"),
    ],
)
def test_genetic_says_what_it_cannot_take(arguments, message):
    with pytest.raises(ValueError, match=message):
        genetic(GENES, scalarize=weigh, **arguments)


def test_genetic_finds_an_optimum_that_random_draws_miss(key):
    """Of 1.7 million genomes, half of them valid, 2,400 are looked at."""
    searches, generations = 6, 60
    search, draw = jax.random.split(key)
    ends = [
        in_the_middle(JITTED["genetic"], each, generations)
        for each in jax.random.split(search, searches)
    ]
    regret = np.array([end.losses[0] for end in ends]) - TARGET.sum()
    drawn = draw_many(jax.random.split(draw, searches * generations * POPULATION))
    losses = weigh(evaluate(np.asarray(drawn))).reshape(searches, -1)
    missed = losses.min(axis=1) - TARGET.sum()
    assert (regret == 0).sum() >= searches - 1
    assert regret.max() < missed.min() / 2
