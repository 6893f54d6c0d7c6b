import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search.pareto.dominance import dominates, non_dominated


def beats(first, second):
    """Dominance in words: nowhere worse, somewhere better; the failed lose."""
    first_failed, second_failed = (
        not all(map(math.isfinite, x)) for x in (first, second)
    )
    if first_failed or second_failed:
        return second_failed and not first_failed
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(rows):
    return [
        all(map(math.isfinite, row)) and not any(beats(other, row) for other in rows)
        for row in rows
    ]


def random_objectives(seed, number, objectives, levels):
    """Ties by few levels, duplicated rows, and failures, whole and in part."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, levels, (number, objectives)).astype(np.float32)
    found -= levels // 2
    copies = rng.integers(0, number, (2, number // 5))
    found[copies[0]] = found[copies[1]]
    found[rng.random(number) < 0.1] = np.nan
    found[rng.random(found.shape) < 0.03] = np.nan
    found[rng.random(found.shape) < 0.02] = np.inf
    found[rng.random(found.shape) < 0.02] = -np.inf
    return found


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
@pytest.mark.parametrize("levels", [3, 1000])
def test_the_front_is_that_of_brute_force(objectives, levels):
    for seed in range(8):
        rows = random_objectives(seed, 40, objectives, levels)
        found = jax.jit(non_dominated)(rows)
        assert found.tolist() == front(rows.tolist())
        assert found.dtype == bool


def test_dominance_is_that_of_brute_force():
    rows = random_objectives(0, 60, 3, 3)
    over = jax.vmap(jax.vmap(dominates, (None, 0)), (0, None))(rows, rows)
    wanted = [[beats(a, b) for b in rows.tolist()] for a in rows.tolist()]
    assert over.tolist() == wanted
    assert np.any(wanted)


def test_the_front_does_not_depend_on_order():
    rows = random_objectives(3, 40, 3, 5)
    order = np.random.default_rng(0).permutation(40)
    found = np.asarray(non_dominated(jnp.asarray(rows)))
    np.testing.assert_array_equal(non_dominated(jnp.asarray(rows[order])), found[order])


def test_equals_share_the_front_and_a_failure_never_has_it():
    nan, inf = math.nan, math.inf
    rows = jnp.array([[1, 2], [1, 2], [2, 1], [2, 2], [nan, nan], [nan, 0], [0, inf]])
    assert non_dominated(rows).tolist() == [True] * 3 + [False] * 4
    failed = jnp.full((3, 2), nan)
    assert non_dominated(failed).tolist() == [False] * 3
    assert non_dominated(rows[:1]).tolist() == [True]


@pytest.mark.parametrize("seed", range(3))
def test_dominance_is_a_strict_partial_order(seed):
    rows = random_objectives(seed, 12, 2, 4)
    over = jax.vmap(jax.vmap(dominates, (None, 0)), (0, None))
    over = np.asarray(over(rows, rows))
    assert not np.any(over & over.T)
    for a, b, c in itertools.product(range(12), repeat=3):
        assert over[a, c] or not (over[a, b] and over[b, c])
