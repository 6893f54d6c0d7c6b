"""RWKV-4's WKV (Peng et al. 2023, arXiv:2305.13048): an average that forgets.

Each channel averages all values so far; a value's weight is exp(key) and falls
with the distance by the channel's own factor. It is read as two running sums,
the weighted values and the weights, both times exp(-maximum): what is
exponentiated is a difference to the largest exponent, and nothing overflows.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from arch.traits import along_channels

CHUNK = 32  # tokens of a chunk; all chunks are read side by side

# The exponent of a sum of nothing: exp(NOTHING - any key) is 0, and it stays
# finite when it decays.
NOTHING = -1e30

Pair: TypeAlias = tuple[jax.Array, jax.Array]  # the numerator's, the denominator's
Step: TypeAlias = tuple[jax.Array, Pair]  # what is kept of sums, what is added


class Sums(NamedTuple):
    """What WKV remembers: the true sums are these times exp(maximum)."""

    numerator: jax.Array  # f32[B, D], values times weights
    denominator: jax.Array  # f32[B, D], weights
    maximum: jax.Array  # f32[B, D], about the largest exponent of a weight


def no_sums(batch: int, channels: int) -> Sums:
    """The sums before the first token."""
    zeros = jnp.zeros((batch, channels))
    return Sums(zeros, zeros, jnp.full_like(zeros, NOTHING))


def wkv(
    decay: jax.Array,
    bonus: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    sums: Sums | None,
    lengths: jax.Array | None = None,
) -> tuple[jax.Array, Sums | None]:
    """The average of the values up to each token, weights exp(key) that decay.

    Args:
      decay: f32[D], at most 0, added to an exponent at each later token.
      bonus: f32[D], added to the exponent of the newest token while it is that.
      keys: [B, T, D].
      values: [B, T, D].
      sums: of the tokens before; None if there are none and the sums after
        these are not asked for.
      lengths: i32[B], real tokens of each row; None if all are.

    Returns:
      f32[B, T, D], and the sums after each row's last real token.
    """
    decay = jnp.maximum(decay, NOTHING)  # of -inf nothing is left either
    batch, tokens, channels = keys.shape
    if tokens == 1 and sums is not None:
        return _read_token(decay, bonus, keys, values, sums, lengths)
    # One token more, so that the sums after the last are those before a token.
    steps = tokens if sums is None else tokens + 1
    size = min(CHUNK, steps)
    keys, values = (_split(x.astype(jnp.float32), steps, size) for x in (keys, values))
    before = _sums_before(
        decay, keys, values, no_sums(batch, channels) if sums is None else sums
    )
    averages = _join(_average(bonus, keys, values, before), tokens)
    if sums is None:
        return averages, None
    end = jnp.full(batch, tokens) if lengths is None else lengths
    index = end % size, end // size, jnp.arange(batch)
    return averages, Sums(*(x[index] for x in before))


def _read_token(
    decay: jax.Array,
    bonus: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    sums: Sums,
    lengths: jax.Array | None,
) -> tuple[jax.Array, Sums]:
    """`wkv` of one token."""
    keys, values = (x[:, 0].astype(jnp.float32) for x in (keys, values))
    averages = _average(bonus, keys, values, sums)
    decay = along_channels(decay, keys)
    maximum = jax.lax.stop_gradient(jnp.maximum(sums.maximum + decay, keys))
    kept, added = _weights(decay, keys, sums.maximum, maximum)
    after = Sums(
        kept * sums.numerator + added * values,
        kept * sums.denominator + added,
        maximum,
    )
    if lengths is not None:
        choose = lambda new, old: jnp.where(lengths[:, None] > 0, new, old)
        after = jax.tree.map(choose, after, sums)
    return averages[:, None], after


def _sums_before(
    decay: jax.Array, keys: jax.Array, values: jax.Array, start: Sums
) -> Sums:
    """The sums before each token: f32[S, C, B, D], from those before the first.

    The exponents' maxima need not be exact and pass no gradient on: they only
    scale both sums, and the average does not depend on them.
    """
    decay = along_channels(decay, keys)
    constants = jax.lax.stop_gradient((decay, keys, start.maximum))
    maxima = _maxima(*constants)
    kept, added = _weights(decay, keys, maxima[:-1], maxima[1:])
    new, sums = (added * values, added), (start.numerator, start.denominator)
    before, _ = _accumulate(kept, new, sums)
    return Sums(*before, maxima[:-1])


def _weights(
    decay: jax.Array, keys: jax.Array, maximum: jax.Array, after: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How a token scales the sums before it, and itself: exp of at most 0.

    The maxima are subtracted first: added to a large one, a slow decay would be
    rounded away.
    """
    return jnp.exp((maximum - after) + decay), jnp.exp(keys - after)


def _average(
    bonus: jax.Array, keys: jax.Array, values: jax.Array, sums: Sums
) -> jax.Array:
    """The average over the sums and the newest token, which has a bonus."""
    exponent = keys + along_channels(bonus, keys)
    maximum = jax.lax.stop_gradient(jnp.maximum(sums.maximum, exponent))
    old, new = jnp.exp(sums.maximum - maximum), jnp.exp(exponent - maximum)
    total = old * sums.numerator + new * values
    return total / (old * sums.denominator + new)


# ---- chunks of time side by side: [S tokens of a chunk, C chunks, B, D] ----
# A chunk is read as if it were the first, all chunks at once; then a state is
# handed from chunk to chunk; then it enters every token of its chunk. That
# takes S + C short steps instead of S x C, and memory linear in the tokens.


def _split(x: jax.Array, steps: int, size: int) -> jax.Array:
    """[B, T, D] -> [S, C, B, D], with zeros behind for at least `steps` tokens."""
    batch, tokens, channels = x.shape
    chunks = -(-steps // size)
    x = jnp.pad(x, ((0, 0), (0, chunks * size - tokens), (0, 0)))
    return x.reshape(batch, chunks, size, channels).transpose(2, 1, 0, 3)


def _join(x: jax.Array, tokens: int) -> jax.Array:
    """The inverse of `_split`."""
    size, chunks, batch, channels = x.shape
    x = x.transpose(2, 1, 0, 3).reshape(batch, chunks * size, channels)
    return x[:, :tokens]


def _maxima(decay: jax.Array, keys: jax.Array, start: jax.Array) -> jax.Array:
    """The largest exponent before each token of a chunk and after its last.

    [1, 1, 1, D], [S, C, B, D], [B, D] -> [S + 1, C, B, D].
    """
    size = keys.shape[0]

    def token(maximum: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.maximum(maximum + decay[0], key), maximum

    def chunk(maximum: jax.Array, own: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.maximum(maximum + size * decay[0, 0], own), maximum

    whole, before = jax.lax.scan(token, jnp.full_like(keys[0], NOTHING), keys)
    _, starts = jax.lax.scan(chunk, start, whole)
    age = jnp.arange(size + 1, dtype=jnp.float32)[:, None, None, None]
    own = jnp.concatenate([before, whole[None]])
    return jnp.maximum(own, starts[None] + age * decay)


@jax.custom_vjp
def _accumulate(kept: jax.Array, new: Pair, start: Pair) -> tuple[Pair, Pair]:
    """Sums that go from s to kept * s + new at each token.

    Args:
      kept: [S, C, B, D].
      new: two [S, C, B, D].
      start: two [B, D].

    Returns:
      The two sums before each token, and those after the last.
    """
    return _accumulate_chunks(kept, new, start, reverse=False)


def _accumulate_chunks(
    kept: jax.Array, new: Pair, start: Pair, reverse: bool
) -> tuple[Pair, Pair]:
    def token(carry: Step, now: Step) -> tuple[Step, Step]:
        share, sums = carry
        return (now[0] * share, _advance(sums, *now)), carry

    def chunk(sums: Pair, whole: Step) -> tuple[Pair, Pair]:
        return _advance(sums, *whole), sums

    zeros = jnp.zeros_like(kept[0])
    empty = (jnp.ones_like(zeros), (zeros, zeros))
    whole, (share, own) = jax.lax.scan(token, empty, (kept, new), reverse=reverse)
    end, starts = jax.lax.scan(chunk, start, whole, reverse=reverse)
    return jax.tree.map(lambda x, first: x + share * first[None], own, starts), end


def _advance(sums: Pair, kept: jax.Array, new: Pair) -> Pair:
    return jax.tree.map(lambda old, more: kept * old + more, sums, new)


def _accumulate_forward(
    kept: jax.Array, new: Pair, start: Pair
) -> tuple[tuple[Pair, Pair], Step]:
    before, end = _accumulate(kept, new, start)
    return (before, end), (kept, before)


def _accumulate_backward(
    residuals: Step, gradients: tuple[Pair, Pair]
) -> tuple[jax.Array, Pair, Pair]:
    # The gradient of a sum is the later sums' times what they keep of it: the
    # same recurrence backward in time, where what was before a token is after it.
    kept, before = residuals
    of_sums, of_end = gradients
    after, start = _accumulate_chunks(kept, of_sums, of_end, reverse=True)
    return after[0] * before[0] + after[1] * before[1], after, start


_accumulate.defvjp(_accumulate_forward, _accumulate_backward)
