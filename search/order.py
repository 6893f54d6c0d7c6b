"""Sorting by several keys, in less time than XLA takes for it on a CPU."""

import jax
import jax.numpy as jnp

HALF = 16  # bits of a key that are sorted at once, beside a place
MOST = 2**HALF  # rows whose places fit beside them


def stable_order(*keys: jax.Array) -> jax.Array:
    """The places in the order of the first key, of equals by the next, then place.

    XLA sorts a lone array of integers about ten times faster than one that takes
    others along. So half a key and a place make one integer, and the halves are
    sorted one after the other, the last one first (radix sort).

    Args:
      keys: i32[N], u32[N] or f32[N]; NaN comes after all other numbers.

    Returns:
      i32[N].
    """
    number = keys[0].shape[0]
    if number > MOST:
        return jnp.lexsort(keys[::-1])
    place = jnp.arange(number, dtype=jnp.uint32)
    order = place
    for key in reversed(keys):
        bits = _as_unsigned(key)
        for half in (bits & (MOST - 1), bits >> HALF):
            packed = jnp.sort(half[order] << HALF | place, stable=False)
            order = order[packed & (MOST - 1)]
    return order.astype(jnp.int32)


def repeats(rows: jax.Array, order: jax.Array) -> jax.Array:
    """[N, G], i32[N] -> bool[N], True for a row like the one before it in the order."""
    ordered = rows[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    return jnp.zeros(len(rows), bool).at[order[1:]].set(same)


def _as_unsigned(key: jax.Array) -> jax.Array:
    """u32[N] in the same order."""
    if key.dtype == jnp.uint32:
        return key
    top = jnp.uint32(2**31)
    if key.dtype != jnp.float32:
        return jax.lax.bitcast_convert_type(key, jnp.uint32) ^ top
    # One zero and one NaN, as comparisons have it.
    plain = jnp.where(key == 0, 0.0, jnp.where(jnp.isnan(key), jnp.nan, key))
    bits = jax.lax.bitcast_convert_type(plain, jnp.uint32)
    return jnp.where(bits >= top, ~bits, bits ^ top)
