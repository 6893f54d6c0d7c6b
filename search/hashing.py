"""Integers mixed into numbers that look random, and a memory of genomes by them."""

import jax
import jax.numpy as jnp


def mixed(number: jax.Array) -> jax.Array:
    """u32[...] -> u32[...], one to one, any bit of which depends on all bits.

    The last step of MurmurHash3 (Appleby 2011).
    """
    number = (number ^ (number >> 16)) * jnp.uint32(0x85EBCA6B)
    number = (number ^ (number >> 13)) * jnp.uint32(0xC2B2AE35)
    return number ^ (number >> 16)


def hashed(digits: jax.Array, salt: int = 0) -> jax.Array:
    """i32[G] or f32[G] -> u32[], depends on every number and its place."""
    if digits.dtype == jnp.float32:
        digits = jax.lax.bitcast_convert_type(digits, jnp.uint32)
    index = jnp.arange(1, len(digits) + 1, dtype=jnp.uint32)
    # Places are far apart, so that the same numbers elsewhere are others.
    apart = digits.astype(jnp.uint32) + index * jnp.uint32(0x9E3779B9)
    each = mixed(mixed(apart) ^ jnp.uint32(salt))
    return mixed(each.sum(dtype=jnp.uint32))


def slots(genomes: jax.Array, number: int) -> jax.Array:
    """[..., G] -> u32[...], each genome's slot in a memory; two may share one."""
    slot = lambda genome: hashed(genome) % number
    for _ in range(genomes.ndim - 1):
        slot = jax.vmap(slot)
    return slot(genomes)


def is_told(told: jax.Array, genomes: jax.Array) -> jax.Array:
    """Memory bool[S], [..., G] -> bool[...], True for what was told."""
    return told[slots(genomes, told.size)]


def remember(told: jax.Array, genomes: jax.Array, mask: jax.Array) -> jax.Array:
    """Memory bool[S], with genomes [N, G] where bool[N] `mask` is True."""
    where = jnp.where(mask, slots(genomes, told.size), told.size)
    return told.at[where].set(True, mode="drop")
