"""Integers mixed into numbers that look random."""

import jax
import jax.numpy as jnp


def mixed(number: jax.Array) -> jax.Array:
    """u32[...] -> u32[...], one to one, any bit of which depends on all bits.

    The last step of MurmurHash3 (Appleby 2011).
    """
    number = (number ^ (number >> 16)) * jnp.uint32(0x85EBCA6B)
    number = (number ^ (number >> 13)) * jnp.uint32(0xC2B2AE35)
    return number ^ (number >> 16)


def hashed(digits: jax.Array) -> jax.Array:
    """i32[G] -> u32[], a number that depends on every digit and its place."""
    digits = digits.astype(jnp.uint32)
    step = lambda found, digit: (mixed(found * jnp.uint32(31) + digit + 1), None)
    return jax.lax.scan(step, jnp.uint32(0), digits)[0]
