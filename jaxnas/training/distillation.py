"""What a teacher expects of each next token: its likeliest ones, stored, as a loss."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnas.data.tokenizer import id_type

_LEAST = 1e-6  # probability of what is not among the stored ones


class Lesson(NamedTuple):
    """Tokens, and what the teacher expects behind each of them."""

    tokens: jax.Array  # i[N], or i32[B, T+1] of a batch
    ids: jax.Array  # ids[N, K] or [B, T, K]: the likeliest next tokens
    log_probabilities: jax.Array  # f16, theirs


def top_expected(logits: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """f32[..., V] -> the likeliest tokens, ids[..., K] and f16[..., K]."""
    found, ids = jax.lax.top_k(jax.nn.log_softmax(logits), number)
    return ids.astype(id_type(logits.shape[-1])), found.astype(jnp.float16)


def gather_lesson(lesson: Lesson, starts: jax.Array, length: int) -> Lesson:
    """The windows of a batch: a token more than there are expectations."""
    places = starts[:, None] + jnp.arange(length + 1)[None]
    inside = places[:, :-1]
    return Lesson(
        lesson.tokens[places].astype(jnp.int32),
        lesson.ids[inside],
        lesson.log_probabilities[inside],
    )


def divergence(logits: jax.Array, lesson: Lesson) -> jax.Array:
    """Kullback-Leibler, teacher to student: f32[B, T], nats.

    Over the stored tokens, and all others together as one more (top logits: Peng et
    al. 2024, arXiv:2410.16215).
    """
    teacher = lesson.log_probabilities.astype(jnp.float32)
    ids = lesson.ids.astype(jnp.int32)
    student = jnp.take_along_axis(jax.nn.log_softmax(logits), ids, axis=-1)
    rest = [
        jnp.log(jnp.clip(1 - jnp.exp(one).sum(axis=-1), _LEAST, 1.0))
        for one in (teacher, student)
    ]
    stored = (jnp.exp(teacher) * (teacher - student)).sum(axis=-1)
    return stored + jnp.exp(rest[0]) * (rest[0] - rest[1])
