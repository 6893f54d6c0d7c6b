"""Ranks, crowding, hypervolume, knee and constraints against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_pareto import front, random_objectives

from search import (
    constrained_ranks,
    constraint_dominates,
    crowding_distance,
    hypervolume,
    hypervolume_contributions,
    knee_point,
    non_dominated_ranks,
)

NAN, INF = np.nan, np.inf
SHAPES = [(1, 1), (31, 2), (64, 3), (70, 5)]

ranks_of = jax.jit(non_dominated_ranks, static_argnums=1)
crowding_of = jax.jit(crowding_distance)
volume_of = jax.jit(hypervolume)
contributions_of = jax.jit(hypervolume_contributions)
constrained_of = jax.jit(constrained_ranks)


def ranks_by_hand(rows):
    """Front after front by brute force; len(rows) for those that failed."""
    ranks = np.full(len(rows), len(rows))
    for rank in range(len(rows)):
        left = np.flatnonzero(ranks == len(rows))
        ranks[left[front(rows[left].tolist())]] = rank
    return ranks


@pytest.mark.parametrize(("number", "objectives"), SHAPES)
@pytest.mark.parametrize("levels", [3, 1000])
def test_ranks_are_those_of_brute_force(number, objectives, levels):
    for seed in range(5):
        rows = random_objectives(seed, number, objectives, levels)
        found = ranks_of(rows, None)
        np.testing.assert_array_equal(found, ranks_by_hand(rows))
        assert found.dtype == jnp.int32


def test_ranks_stop_where_enough_have_one():
    rows = random_objectives(0, 70, 2, 1000)
    every = np.asarray(ranks_of(rows, None))
    for enough in (1, 20, 70):
        found = np.asarray(ranks_of(rows, enough))
        done = found < 70
        assert done.sum() >= min(enough, (every < 70).sum())
        np.testing.assert_array_equal(found[done], every[done])
        assert (every[~done] > found[done].max()).all()
        # Not one front more than that.
        assert (found < found[done].max()).sum() < enough


def test_what_is_not_finite_has_no_rank():
    rows = np.float32([[INF, 0], [0, NAN], [-INF, 0], [5, 5]])
    assert ranks_of(rows, None).tolist() == [4, 4, 4, 0]
    assert ranks_of(rows[:3], None).tolist() == [3, 3, 3]


def crowding_by_hand(rows, ranks):
    distance = np.zeros(len(rows))
    for rank in set(ranks[np.isfinite(rows).all(axis=1)]):
        members = np.flatnonzero(ranks == rank)
        for column in rows.T:
            order = members[np.argsort(column[members], kind="stable")]
            values = column[order].astype(float)
            if values[-1] > values[0]:
                distance[order[[0, -1]]] = INF
                gaps = (values[2:] - values[:-2]) / (values[-1] - values[0])
                distance[order[1:-1]] += gaps
    return distance


@pytest.mark.parametrize(("number", "objectives"), SHAPES)
@pytest.mark.parametrize("levels", [3, 1000])
def test_crowding_is_that_of_brute_force(number, objectives, levels):
    for seed in range(5):
        rows = random_objectives(seed, number, objectives, levels)
        ranks = ranks_by_hand(rows)
        np.testing.assert_allclose(
            crowding_of(rows, ranks), crowding_by_hand(rows, ranks), rtol=1e-5
        )


def volume_by_hand(rows, reference):
    """Counts unit cells between whole-numbered points and the reference."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    low = int(min(rows.min(initial=0), 0))
    cells = itertools.product(*(range(low, int(end)) for end in reference))
    return sum(
        any((row <= cell).all() for row in rows) for cell in map(np.array, cells)
    )


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_and_contributions_are_those_of_counted_cells(objectives):
    reference = np.float32([4, 3, 5][:objectives])
    for seed in range(4):
        rows = random_objectives(seed, 15, objectives, 9)
        whole = volume_by_hand(rows, reference)
        np.testing.assert_allclose(volume_of(rows, reference), whole, rtol=1e-6)
        without = [
            whole - volume_by_hand(np.delete(rows, i, axis=0), reference)
            for i in range(15)
        ]
        found = contributions_of(rows, reference)
        np.testing.assert_allclose(found, without, atol=1e-4)


def test_hypervolume_is_of_two_or_three_objectives():
    with pytest.raises(ValueError, match="2 or 3 objectives, got 4"):
        hypervolume(jnp.zeros((5, 4)), jnp.ones(4))


def test_what_failed_or_lies_beyond_the_reference_adds_no_volume():
    rows = np.float32([[1, 1], [NAN, 0], [-INF, 0], [3, -5], [0, 2]])
    reference = np.float32([2, 2])
    assert volume_of(rows, reference) == 1
    assert contributions_of(rows, reference).tolist() == [1, 0, 0, 0, 0]


def test_the_knee_is_where_the_front_bends():
    rows = np.float32([[0, 100], [10, 50], [12, 20], [50, 10], [100, 0], [99, 99]])
    assert knee_point(rows) == 2
    assert knee_point(rows * np.float32([1000, 0.01])) == 2
    assert knee_point(rows[:1]) == 0
    assert knee_point(np.float32([[NAN, 0], [3, 3]])) == 1
    assert knee_point(np.float32([[NAN, 0], [INF, 3]])) == -1


def constrained_by_hand(rows, violations):
    beats = np.asarray(
        jax.vmap(
            jax.vmap(constraint_dominates, (None, 0, None, 0)), (0, None, 0, None)
        )(rows, rows, violations, violations)
    )
    lost = ~np.isfinite(rows).all(axis=1) | ~np.isfinite(violations)
    ranks = np.full(len(rows), len(rows))
    for rank in range(len(rows)):
        left = (ranks == len(rows)) & ~lost
        ranks[left & ~beats[left].any(axis=0)] = rank
    return ranks


@pytest.mark.parametrize("seed", range(5))
def test_constrained_ranks_are_those_of_constraint_domination(seed):
    rows = random_objectives(seed, 40, 2, 5)
    rng = np.random.default_rng(seed)
    violations = rng.integers(-3, 4, 40).astype(np.float32)
    violations[:3] = NAN, INF, 0.0
    found = constrained_of(rows, violations)
    np.testing.assert_array_equal(found, constrained_by_hand(rows, violations))


def test_constraint_domination_puts_the_feasible_first():
    good, poor = jnp.zeros(2), jnp.ones(2)
    assert constraint_dominates(poor, good, jnp.float32(-1), jnp.float32(0.1))
    assert constraint_dominates(poor, good, jnp.float32(0.1), jnp.float32(0.2))
    assert constraint_dominates(good, poor, jnp.float32(-1), jnp.float32(-9))
    assert not constraint_dominates(good, poor, jnp.float32(0.2), jnp.float32(0.2))
    assert not constraint_dominates(good, poor, jnp.float32(NAN), jnp.float32(2))


@pytest.mark.parametrize("objectives", [2, 3])
def test_ranks_and_crowding_are_pymoos(objectives):
    pytest.importorskip("pymoo")
    from pymoo.operators.survival.rank_and_crowding.metrics import (
        calc_crowding_distance,
    )
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    for levels in (6, 10_000):
        rows = random_objectives(1, 200, objectives, levels)
        rows = rows[np.isfinite(rows).all(axis=1)]
        found = np.asarray(ranks_of(rows, None))
        fronts, ranks = NonDominatedSorting().do(
            rows.astype(np.float64), return_rank=True
        )
        np.testing.assert_array_equal(found, ranks)
        distance = np.asarray(crowding_of(rows, found))
        for members in fronts:
            theirs = calc_crowding_distance(
                rows[members].astype(np.float64), filter_out_duplicates=False
            )
            np.testing.assert_allclose(
                distance[members] / objectives, theirs, rtol=1e-5
            )


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_is_moocores(objectives):
    moocore = pytest.importorskip("moocore")
    reference = np.full(objectives, 1.1, np.float32)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rows = rng.random((100, objectives), np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[:10] = rows[10:20]  # duplicates
        rows[20:30, 0] = rows[30:40, 0]  # ties
        wanted = moocore.hypervolume(rows.astype(np.float64), ref=reference)
        np.testing.assert_allclose(volume_of(rows, reference), wanted, rtol=1e-5)
        wanted = moocore.hv_contributions(
            rows.astype(np.float64), ref=reference, ignore_dominated=False
        )
        found = contributions_of(rows, reference)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
