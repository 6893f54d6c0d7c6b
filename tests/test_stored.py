"""Compiled programs on the disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.population import program_cache
from jaxnas.population.compile_stats import compile_counts


@pytest.fixture
def folder(tmp_path):
    """A cache of its own, and what jaxnas keeps in it; JAX keeps nothing there."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: jax.config.values[name] for name in names}
    for name, value in zip(names, (str(tmp_path), 1e9), strict=True):
        jax.config.update(name, value)
    yield tmp_path / "jaxnas"
    for name, value in before.items():
        jax.config.update(name, value)


def ready(about="tripled", factor=3.0, donated=()):
    device = jax.local_devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    argument = jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding)
    return program_cache.compiled(
        lambda x: x * factor, (argument,), device, about, donated
    )


def test_a_stored_program_is_found_and_gives_the_same(folder):
    x = jnp.arange(4.0)
    first = ready()
    before = compile_counts()
    # Found by what it is said to be: the factor is not looked at again.
    again = ready(factor=5.0)
    assert compile_counts().since(before) == (0, 1)
    np.testing.assert_array_equal(first(x), x * 3)
    np.testing.assert_array_equal(again(x), x * 3)
    assert len(list(folder.iterdir())) == 1
    assert again.memory_analysis() is not None


def test_what_is_said_differently_is_another_program(folder):
    ready()
    np.testing.assert_array_equal(ready("five times", 5.0)(jnp.ones(4)), 5 * np.ones(4))
    ready(donated=(0,))
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"not a program", None])
def test_a_damaged_entry_is_made_anew(folder, damage):
    ready()
    [path] = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] if damage is None else damage)
    np.testing.assert_array_equal(ready()(jnp.ones(4)), 3 * np.ones(4))


def test_nothing_is_stored_where_the_cache_is_off(folder):
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        ready()
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    assert not folder.exists()
