"""Sorting by halves of keys, against a sort of NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search import order
from search.order import stable_order

rng = np.random.default_rng(0)
SPECIAL = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2**-120, 3e38])
KEYS = {
    "i32": rng.integers(-(2**31), 2**31, 300, dtype=np.int64).astype(np.int32),
    "u32": rng.integers(0, 2**32, 300, dtype=np.uint64).astype(np.uint32),
    "f32": rng.normal(size=300).astype(np.float32),
    "special": rng.choice([*SPECIAL, -np.float32(np.nan)], 300),
    "few": rng.integers(-2, 2, 300, dtype=np.int32),
}


@pytest.mark.parametrize("last", KEYS)
@pytest.mark.parametrize("first", [None, "few", "special"])
def test_the_order_is_that_of_a_stable_sort(first, last):
    keys = [KEYS[name] for name in (first, last) if name is not None]
    found = jax.jit(stable_order)(*keys)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, np.lexsort(keys[::-1]))


def test_more_rows_than_places_that_fit(monkeypatch):
    keys = KEYS["few"], KEYS["f32"]
    halves = stable_order(*keys)
    monkeypatch.setattr(order, "MOST", 256)
    np.testing.assert_array_equal(stable_order(*keys), halves)
