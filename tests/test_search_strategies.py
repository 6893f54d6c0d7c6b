"""One contract for every strategy, then what each of them adds to it."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search import STRATEGIES, Strategy, genetic, uniform


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


def jitted(strategy):
    return Strategy(*map(jax.jit, strategy))


BY_HAND = {"genetic": genetic(GENES, scalarize=weigh, population=POPULATION)}
JITTED = {name: jitted(strategy) for name, strategy in BY_HAND.items()}


@pytest.fixture(params=JITTED)
def strategy(request):
    return JITTED[request.param]


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
def test_what_is_asked_depends_on_the_key_alone(strategy, key, generations):
    before, now, other = jax.random.split(key, 3)
    state = in_the_middle(strategy, before, generations)
    asked = strategy.ask(now, state)
    chex.assert_trees_all_equal(asked, strategy.ask(jax.random.clone(now), state))
    assert (asked != strategy.ask(other, state)).any()


@pytest.mark.parametrize("name", BY_HAND)
def test_jit_changes_nothing(name, key):
    before, now = jax.random.split(key)
    for generations in (0, 2):
        this = jax.random.fold_in(before, generations)
        state = in_the_middle(JITTED[name], this, generations)
        by_hand = generation(BY_HAND[name], state, jax.random.clone(now), 1000)
        compiled = generation(JITTED[name], state, jax.random.clone(now), 1000)
        chex.assert_trees_all_equal(by_hand, compiled)


def test_searches_side_by_side_in_one_scan_equal_searches_alone(strategy, key):
    step = jax.vmap(lambda *this: generation(strategy, *this), (0, 0, None))
    each_generation = lambda states, this: step(states, *this)
    keys = jax.random.split(key, (4, 3))
    firsts = POPULATION * jnp.arange(4, dtype=jnp.int32)
    starts = jax.vmap(strategy.init)(jax.random.split(jax.random.key(1), 3))
    ends, asked = jax.jit(functools.partial(jax.lax.scan, each_generation))(
        starts, (jax.random.clone(keys), firsts)
    )
    for search in range(3):
        state = jax.tree.map(lambda leaf, search=search: leaf[search], starts)
        for number in range(4):
            this = keys[number, search], POPULATION * number
            state, genomes = generation(strategy, state, *this)
            chex.assert_trees_all_equal(genomes, asked[number, search])
        end = jax.tree.map(lambda leaf, search=search: leaf[search], ends)
        chex.assert_trees_all_equal(state, end)


@pytest.mark.parametrize("generations", [0, 2])
def test_the_order_and_the_pieces_of_telling_change_nothing(strategy, key, generations):
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
def test_a_failure_displaces_nothing(strategy, key, column):
    """Nor does a row of which one objective could be measured, very low."""
    before, draw = jax.random.split(key)
    state = in_the_middle(strategy, before)
    rows = some_rows(draw, 40, first_id=1000)
    low = np.full((40, 2), -1000, np.float32)
    low[:, column] = np.nan
    failed = rows._replace(objectives=low, mask=np.ones(40, bool))
    chex.assert_trees_all_equal(strategy.tell(state, *failed), state)


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
    assert is_seed == [False] * 11 + [True] * 10


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
