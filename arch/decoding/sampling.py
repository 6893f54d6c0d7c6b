"""From logits to a token: penalties, what is cut off, and the draw.

The processors compute what those of Hugging Face's transformers do, in their
order. Nothing is sorted: on a CPU that takes longer than a small model.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arch.checks import is_real

MIN_TEMPERATURE = 1e-6  # above 0; far below it float32 would divide by zero


class SamplingParams(NamedTuple):
    """Settings as data. None is off, and leaves no trace in the program."""

    temperature: jax.Array | None = None  # f32[]; None takes the likeliest token
    top_k: jax.Array | None = None  # f32[]
    top_p: jax.Array | None = None  # f32[]
    min_p: jax.Array | None = None  # f32[]
    repetition_penalty: jax.Array | None = None  # f32[]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn; by default from the model's own distribution.

    Raises:
      ValueError: a field is out of its range; one line with the field, the
        value and what is allowed.
    """

    temperature: float = 1.0  # divides the logits; 0 takes the likeliest token
    top_k: int = 0  # keeps this many of the likeliest tokens; 0 keeps all
    top_p: float = 1.0  # nucleus (arXiv:1904.09751): keeps this share; 1 keeps all
    min_p: float = 0.0  # (arXiv:2407.01082) of the likeliest token's probability
    repetition_penalty: float = 1.0  # of CTRL (arXiv:1909.05858); 1 is none

    def __post_init__(self) -> None:
        temperature, top_k = self.temperature, self.top_k
        self._require(
            "temperature",
            is_real(temperature)
            and (temperature == 0 or temperature >= MIN_TEMPERATURE),
            f"0 or a number of at least {MIN_TEMPERATURE}",
        )
        self._require(
            "top_k",
            isinstance(top_k, int) and not isinstance(top_k, bool) and top_k >= 0,
            "an int of at least 0",
        )
        self._require(
            "top_p",
            is_real(self.top_p) and 0 < self.top_p <= 1,
            "a number above 0 and at most 1",
        )
        self._require(
            "min_p",
            is_real(self.min_p) and 0 <= self.min_p <= 1,
            "a number from 0 to 1",
        )
        self._require(
            "repetition_penalty",
            is_real(self.repetition_penalty) and self.repetition_penalty > 0,
            "a number above 0",
        )

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            got = getattr(self, name)
            raise ValueError(f"{name}={got!r} is not allowed: needs {allowed}")

    def knobs(self) -> SamplingParams:
        """The settings that change anything, as arrays."""
        off = Sampling()
        changed = {
            field.name: jnp.float32(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(off, field.name)
        }
        if self.temperature == 0:  # what is cut off is never the likeliest token
            return SamplingParams(repetition_penalty=changed.get("repetition_penalty"))
        return SamplingParams(**({"temperature": jnp.float32(1)} | changed))


GREEDY = Sampling(temperature=0)


def process_logits(
    logits: jax.Array, seen: jax.Array | None, knobs: SamplingParams
) -> jax.Array:
    """Scores to draw from: the softmax of what comes back is the distribution.

    Tokens of one score are kept or cut together.

    Args:
      logits: f32[V], finite.
      seen: bool[V], tokens that the repetition penalty is for; None for none.
      knobs: the settings.

    Returns:
      f32[V], minus infinity for what is cut off.
    """
    scores = logits
    if knobs.repetition_penalty is not None and seen is not None:
        penalty = knobs.repetition_penalty
        punished = jnp.where(scores < 0, scores * penalty, scores / penalty)
        scores = jnp.where(seen, punished, scores)
    if knobs.temperature is not None:
        # Less the greatest, so that a low temperature does not overflow.
        scores = (scores - scores.max()) / knobs.temperature
    if knobs.top_k is not None:
        scores = _cut(scores, jnp.ones_like(scores), knobs.top_k)
    if knobs.top_p is not None:
        scores = _cut(scores, jax.nn.softmax(scores), knobs.top_p)
    if knobs.min_p is not None:
        relative = jnp.exp(scores - scores.max())
        scores = jnp.where(relative >= knobs.min_p, scores, -jnp.inf)
    return scores


def draw(
    key: jax.Array, logits: jax.Array, seen: jax.Array | None, knobs: SamplingParams
) -> jax.Array:
    """Draws a token.

    Args:
      key: PRNG key, consumed; without a temperature left alone.
      logits: see `process_logits`; so are the others.

    Returns:
      i32[].
    """
    scores = process_logits(logits, seen, knobs)
    if knobs.temperature is not None:
        scores = scores + jax.random.gumbel(key, scores.shape)  # Gumbel-max
    return _argmax(scores)


def _cut(scores: jax.Array, weights: jax.Array, bound: jax.Array) -> jax.Array:
    """Keeps a token if those that score higher weigh less than `bound` together."""
    places = _places(scores)

    def halve(bit: jax.Array, low: jax.Array) -> jax.Array:
        # The greatest place above which the weight is not less than the bound.
        place = low + jnp.left_shift(jnp.int32(1), 31 - bit)
        above = jnp.where(places > place, weights, 0).sum()
        return jnp.where(above >= bound, place, low)

    least = jnp.int32(jnp.iinfo(jnp.int32).min)
    cut = jax.lax.fori_loop(0, 32, halve, least)
    return jnp.where(places > cut, scores, -jnp.inf)


def _places(scores: jax.Array) -> jax.Array:
    """f32 -> i32 in the same order: floats are integers with a sign bit."""
    bits = jax.lax.bitcast_convert_type(scores, jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def _argmax(scores: jax.Array) -> jax.Array:
    """The first of the greatest: f32[V] -> i32[].

    Two reductions are vector instructions on a CPU; jnp.argmax takes ten times
    as long.
    """
    tokens = jnp.arange(scores.size, dtype=jnp.int32)
    first = jnp.where(scores == scores.max(), tokens, scores.size - 1)
    return first.min()
