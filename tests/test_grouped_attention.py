import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_reference import (
    as_data,
    config_of,
    draw,
    layer_by_hand,
    run,
    slopes_of,
    weights_of,
)

from arch.config import POSITION_ENCODINGS
from arch.mixers.attention import attention_state

GROUPED = "grouped_query_attention"
every_position = pytest.mark.parametrize("position", POSITION_ENCODINGS)
every_count = pytest.mark.parametrize("kv_heads", [1, 2, 4, None])


@functools.partial(jax.jit, static_argnums=0)
def compiled(shape, weights, x, traits, state=None, lengths=None, key=None):
    return run(shape, weights, x, state, traits, key, lengths)


def read(config, weights, x, **more):
    """One program for all position encodings."""
    shape = dataclasses.replace(config, position_encoding="rope")
    return compiled(shape, weights, x, as_data(config), **more)


@every_position
@every_count
def test_the_layer_is_its_formula(position, kv_heads):
    config = config_of(GROUPED, position, kv_heads=kv_heads)
    weights, x = weights_of(config), draw(0, 2, 40, 32)
    assert weights["key"]["kernel"].shape[1] == (kv_heads or 2)
    wanted = layer_by_hand(config, x, weights)
    assert wanted.std() > 0.2
    got, nothing = read(config, weights, x)
    assert nothing is None
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 3])
def test_heads_that_are_no_power_of_two(kv_heads):
    config = config_of(GROUPED, hidden_dim=48, num_heads=6, kv_heads=kv_heads)
    weights, x = weights_of(config), draw(1, 2, 20, 48)
    wanted = layer_by_hand(config, x, weights)
    np.testing.assert_allclose(read(config, weights, x)[0], wanted, atol=1e-5)


def repeated(weights, times):
    """The weights of multi-head attention that computes the same."""
    more = {
        name: {"kernel": np.repeat(weights[name]["kernel"], times, axis=1)}
        for name in ("key", "value")
    }
    return weights | more


@every_position
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.sweep(3)
def test_grouped_is_multi_head_attention_with_repeated_weights(position, kv_heads):
    config, dense = (
        config_of(GROUPED, position, kv_heads=kv_heads),
        config_of("transformer", position),
    )
    weights, x = weights_of(config), draw(2, 2, 40, 32)
    ahead = draw(3, 2, 40, 32) / math.sqrt(40)
    y, by_weights, by_x = slopes_of(config, weights, x, ahead)
    wanted = slopes_of(dense, repeated(weights, 4 // kv_heads), x, ahead)
    np.testing.assert_allclose(y, wanted[0], atol=1e-5)
    np.testing.assert_allclose(by_x, wanted[2], atol=1e-5)
    for name, leaf in by_weights.items():
        other = np.asarray(wanted[1][name]["kernel"])
        if name in ("key", "value"):  # each repetition has a share of the slope
            other = other.reshape(32, kv_heads, -1, 8).sum(axis=2)
        np.testing.assert_allclose(leaf["kernel"], other, atol=1e-5)


def test_as_many_key_heads_as_query_heads_is_the_transformer(key):
    changes = {"attention_dropout": 0.3}
    config = config_of(GROUPED, kv_heads=4, **changes)
    dense = config_of("transformer", **changes)
    weights, x = weights_of(config), draw(4, 2, 40, 32)
    for some in (None, key):
        again = some if some is None else jax.random.clone(some)
        got, _ = read(config, weights, x, key=some)
        wanted, _ = read(dense, weights, x, key=again)
        np.testing.assert_array_equal(got, wanted)


def test_grouped_attention_drops_weights_of_each_query_head(key):
    # The first token reads itself alone: a head's output is kept or dropped.
    config = config_of(GROUPED, "alibi", kv_heads=1, attention_dropout=0.5)
    weights = weights_of(config)
    weights["out"]["kernel"] = np.eye(32, dtype=np.float32).reshape(4, 8, 32)
    x = draw(5, 4000, 1, 32)
    dropped, _ = read(config, weights, x, key=key)
    gone = np.asarray(dropped).reshape(4000, 4, 8) == 0
    np.testing.assert_array_equal(gone.all(axis=-1), gone.any(axis=-1))
    counts = np.bincount(gone.all(axis=-1) @ [1, 2, 4, 8], minlength=16)
    assert np.abs(counts - 250).max() < 5 * math.sqrt(250)
    kept, _ = read(config, weights, x)
    np.testing.assert_allclose(
        dropped[:, 0][~gone.reshape(4000, 32)],
        2 * kept[:, 0][~gone.reshape(4000, 32)],
        rtol=1e-6,
    )


@every_position
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.sweep(4)
def test_the_cache_holds_the_key_heads_and_decoding_goes_on(position, kv_heads, dtype):
    config = config_of(GROUPED, position, kv_heads=kv_heads)
    weights, x = weights_of(config), draw(6, 2, 24, 32)
    whole = layer_by_hand(config, x, weights)
    state = attention_state(config, batch=2, capacity=30, dtype=dtype)
    assert state.keys.shape == state.values.shape == (2, 30, kv_heads, 8)
    lengths = np.asarray([20, 13])
    real = np.arange(20)[None, :, None] < lengths[:, None, None]
    padded = np.where(real, x[:, :20], 9).astype(dtype)
    _, state = read(config, weights, padded, state=state, lengths=lengths)
    for more in range(3):
        token = x[[0, 1], lengths + more][:, None].astype(dtype)
        got, state = read(config, weights, token, state=state)
        assert got.dtype == state.keys.dtype == dtype
        wanted = whole[[0, 1], lengths + more]
        atol = 1e-5 if dtype == jnp.float32 else 0.06
        np.testing.assert_allclose(got[:, 0].astype(np.float32), wanted, atol=atol)


def sizes_of(jaxpr):
    """Elements of every value that a program computes, inner programs included."""
    for equation in jaxpr.eqns:
        yield from (math.prod(v.aval.shape) for v in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values())):
            if hasattr(inner, "jaxpr"):
                yield from sizes_of(inner.jaxpr)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_keys_are_not_repeated(kv_heads):
    config = config_of(GROUPED, kv_heads=kv_heads)
    weights, x = weights_of(config), draw(7, 1, 1, 32)
    state = attention_state(config, batch=1, capacity=1000)
    step = lambda x, state: run(config, weights, x, state)
    sizes = list(sizes_of(jax.make_jaxpr(step)(x, state).jaxpr))
    assert max(sizes) == 1000 * kv_heads * 8  # the cache's


def test_gradients_in_bfloat16_are_finite_and_near():
    config = config_of(GROUPED, kv_heads=1)
    weights, x, ahead = weights_of(config), draw(8, 2, 40, 32), draw(9, 2, 40, 32)
    exact = slopes_of(config, weights, x, ahead)
    rough = slopes_of(config, weights, x.astype(jnp.bfloat16), ahead)
    for one, other in zip(*map(jax.tree.leaves, (rough, exact)), strict=True):
        off = np.linalg.norm(np.asarray(one, np.float32) - other)
        assert off < 0.03 * np.linalg.norm(other)


def test_constants_compute_what_data_computes():
    config = config_of(GROUPED, "alibi", kv_heads=2)
    weights, x = weights_of(config), draw(10, 2, 40, 32)
    got, _ = jax.jit(functools.partial(run, config))(weights, x)
    np.testing.assert_allclose(got, read(config, weights, x)[0], atol=1e-6)
