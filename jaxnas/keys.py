"""PRNG keys of a run: one seed, a stream for each purpose."""

import zlib

import jax


def key_of(seed: int, purpose: str, number: int = 0) -> jax.Array:
    """A key that depends on the seed, the purpose and the number alone."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, number)
