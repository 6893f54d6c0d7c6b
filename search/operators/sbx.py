"""Variation of real genes within bounds."""

import jax
import jax.numpy as jnp


def simulated_binary(
    key: jax.Array,
    first: jax.Array,
    second: jax.Array,
    low: jax.Array,
    high: jax.Array,
    *,
    rate: float = 0.9,
    eta: float = 15.0,
) -> jax.Array:
    """Simulated binary crossover (Deb & Agrawal 1995), within bounds.

    With probability `rate` each gene has one chance in two to be crossed: it
    then lies around one of the parents, as near as `eta` is large. All other
    genes are the first parent's.

    Args:
      key: PRNG key, consumed.
      first: f32[G], within bounds.
      second: f32[G], within bounds.
      low, high: f32[G], the bounds.
      rate: in [0, 1].
      eta: at least 0.

    Returns:
      f32[G], within bounds.
    """
    # One draw of all chances takes less time than four.
    whether, which, side, drawn = jax.random.uniform(key, (4, *first.shape))
    crossed = (whether[0] < rate) & (which < 0.5)
    upper = side < 0.5
    less, more = jnp.minimum(first, second), jnp.maximum(first, second)
    gap = more - less
    room = jnp.where(upper, high - more, less - low)
    # How far apart the children may lie, in gaps, and the chance of all beyond.
    widest = 1 + 2 * room / jnp.where(gap > 0, gap, 1.0)
    drawn *= 2 - _power(widest, -(eta + 1))
    spread = _power(jnp.where(drawn <= 1, drawn, 1 / (2 - drawn)), 1 / (eta + 1))
    middle, half = (less + more) / 2, spread * gap / 2
    child = jnp.clip(jnp.where(upper, middle + half, middle - half), low, high)
    return jnp.where(crossed & (gap > 0), child, first)


def polynomial(
    key: jax.Array,
    genome: jax.Array,
    low: jax.Array,
    high: jax.Array,
    *,
    rate: float,
    eta: float = 20.0,
) -> jax.Array:
    """Polynomial mutation (Deb 2001), within bounds.

    Args:
      key: PRNG key, consumed.
      genome: f32[G], within bounds.
      low, high: f32[G], the bounds; where they are equal nothing changes.
      rate: in [0, 1], how likely each gene changes.
      eta: at least 0; the larger, the smaller the changes.

    Returns:
      f32[G], within bounds.
    """
    which, drawn = jax.random.uniform(key, (2, *genome.shape))
    changed = which < rate
    down = drawn < 0.5
    width = high - low
    # The share of the way to the bound on that side, 1 there.
    room = jnp.where(down, genome - low, high - genome) / jnp.where(width > 0, width, 1)
    tail = 2 * jnp.where(down, drawn, 1 - drawn)
    reach = tail + (1 - tail) * _power(1 - room, eta + 1)
    step = (1 - _power(reach, 1 / (eta + 1))) * width
    moved = jnp.clip(genome + jnp.where(down, -step, step), low, high)
    return jnp.where(changed, moved, genome)


def vary_real(
    key: jax.Array,
    first: jax.Array,
    second: jax.Array,
    low: jax.Array,
    high: jax.Array,
    *,
    crossover_rate: float = 0.9,
    mutation_rate: float,
    crossover_eta: float = 15.0,
    mutation_eta: float = 20.0,
) -> jax.Array:
    """A child by simulated binary crossover, then polynomial mutation.

    Args:
      key: PRNG key, consumed.
      first, second: f32[G], the parents, within bounds.
      low, high: f32[G], the bounds.
      crossover_rate, mutation_rate: in [0, 1].
      crossover_eta, mutation_eta: at least 0.

    Returns:
      f32[G], within bounds.
    """
    cross, change = jax.random.split(key)
    child = simulated_binary(
        cross, first, second, low, high, rate=crossover_rate, eta=crossover_eta
    )
    return polynomial(change, child, low, high, rate=mutation_rate, eta=mutation_eta)


def _power(base: jax.Array, exponent: float) -> jax.Array:
    """base ** exponent for a base of at least 0; XLA vectorises it, unlike `pow`."""
    least = jnp.finfo(jnp.float32).tiny  # a logarithm of 0 would become NaN
    return jnp.exp(exponent * jnp.log(jnp.maximum(base, least)))
