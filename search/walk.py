"""A walk through all genomes of a space in random order, none twice."""

import jax
import jax.numpy as jnp
import numpy as np

from search.hashing import hashed, mixed

ROUNDS = 4
MOST = 2**30  # positions that are counted


def draw_salts(key: jax.Array, length: int) -> jax.Array:
    """u32[ROUNDS, length], which decide the order of a walk; length is G."""
    return jax.random.bits(key, (ROUNDS, length), jnp.uint32)


def walk_length(cardinality: np.ndarray) -> int:
    """Genomes before the walk begins again, or `MOST` if they are more."""
    return min(MOST, int(np.prod(cardinality.astype(object))))


def genome_at(
    salts: jax.Array, position: jax.Array, cardinality: np.ndarray
) -> jax.Array:
    """The genome at one position of the walk.

    The position's digits, of which gene g has cardinality[g], go through a
    Feistel network (Luby & Rackoff 1988): each round shifts every second gene,
    around its ring of choices, by a hash of the others. That can be undone, so
    no two positions meet.

    Args:
      salts: u32[ROUNDS, G].
      position: i32[], from 0 and below `walk_length`.
      cardinality: i32[G], concrete.

    Returns:
      i32[G], within bounds; not every one needs to be valid.
    """
    choices = cardinality.max()
    if walk_length(cardinality) == choices:  # one gene has all of them: no two to mix
        order = jnp.argsort(mixed(jnp.arange(choices, dtype=jnp.uint32) ^ salts[0, 0]))
        return jnp.where(cardinality == choices, order[position], 0).astype(jnp.int32)
    # Beyond MOST genes would always be 0: their divisor is not needed.
    steps = np.cumprod(np.asarray([1, *cardinality[:0:-1]], object))[::-1]
    steps = np.minimum(steps, MOST).astype(np.int32)
    digits = position // steps % cardinality
    even = np.arange(len(cardinality)) % 2 == 0
    for number in range(ROUNDS):
        moves = even if number % 2 == 0 else ~even
        seen = hashed(jnp.where(moves, 0, digits))
        shift = mixed(seen ^ salts[number]) % cardinality.astype(np.uint32)
        moved = (digits + shift.astype(jnp.int32)) % cardinality
        digits = jnp.where(moves, moved, digits)
    return digits.astype(jnp.int32)
