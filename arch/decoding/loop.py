"""Decoding as two programs: one reads the prompts, one is a loop over tokens."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.decoding.sampling import SamplingParams, draw
from arch.decoding.unrolled import LayerStates, Weights, forward_with_cache, init_layers

Settings = tuple[SamplingParams, jax.Array]  # and the stop tokens, i32[S]


class DecodeState(NamedTuple):
    """The state of the loop: B rows, room for M tokens in each."""

    keys: jax.Array  # key[B], never consumed
    states: LayerStates  # of all tokens but the last
    drawn: jax.Array  # i32[], tokens drawn for the rows that have not ended
    tokens: jax.Array  # i32[B, M]
    lengths: jax.Array  # i32[B]
    ended: jax.Array  # bool[B], a stop token was drawn
    seen: jax.Array | None  # bool[B, V], tokens in the prompt or drawn


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def start(
    config: ArchitectureConfig,
    dtype: jax.typing.DTypeLike,
    room: int,
    weights: Weights,
    settings: Settings,
    key: jax.Array,
    prompts: jax.Array,
    lengths: jax.Array,
) -> DecodeState:
    """Reads prompts i32[B, T] of i32[B] tokens and draws their first token.

    With room for `room` tokens, this one included.
    """
    batch, padded = prompts.shape
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    states = init_layers(config, batch, padded + room, dtype)
    logits, states = forward_with_cache(
        config, weights, prompts, states, lengths, dtype
    )
    seen = None
    if settings[0].repetition_penalty is not None:
        real = jnp.arange(padded)[None] < lengths[:, None]
        seen = _mark(
            jnp.zeros(logits.shape, bool),
            jnp.where(real, prompts, config.vocab_size),  # padding marks nothing
        )
    return _begun(keys, states, room, settings, logits, seen)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def read_on(
    config: ArchitectureConfig,
    dtype: jax.typing.DTypeLike,
    weights: Weights,
    states: LayerStates,
    tokens: jax.Array,
    lengths: jax.Array,
) -> tuple[jax.Array, LayerStates]:
    """Reads i32[B, T], of which i32[B] are real, behind what was read before.

    `states` are used up; they need room for all T. Returns the logits f32[B, V] after
    each row's last token, and the states.
    """
    return forward_with_cache(config, weights, tokens, states, lengths, dtype)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def begin(
    room: int,
    settings: Settings,
    key: jax.Array,
    states: LayerStates,
    logits: jax.Array,
) -> DecodeState:
    """Draws the first token behind what was read, as `start` does after its prompts.

    `states` are used up. There is no repetition penalty: what the prompts were is not
    known here.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(logits)))
    return _begun(keys, states, room, settings, logits, None)


def _begun(
    keys: jax.Array,
    states: LayerStates,
    room: int,
    settings: Settings,
    logits: jax.Array,
    seen: jax.Array | None,
) -> DecodeState:
    """With the first token drawn."""
    batch = len(logits)
    nothing = DecodeState(
        keys=keys,
        states=states,
        drawn=jnp.int32(0),
        tokens=jnp.zeros((batch, room), jnp.int32),
        lengths=jnp.zeros(batch, jnp.int32),
        ended=jnp.zeros(batch, bool),
        seen=seen,
    )
    return _drawn(settings, nothing, logits)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def decode_loop(
    config: ArchitectureConfig,
    dtype: jax.typing.DTypeLike,
    weights: Weights,
    settings: Settings,
    state: DecodeState,
    until: jax.Array,
) -> DecodeState:
    """Draws until there are `until` tokens, i32[], or all rows have ended.

    `state` is used up: its memory becomes that of what is returned.
    """

    def unfinished(state: DecodeState) -> jax.Array:
        return (state.drawn < until) & ~state.ended.all()

    def step(state: DecodeState) -> DecodeState:
        last = jax.lax.dynamic_slice_in_dim(state.tokens, state.drawn - 1, 1, axis=1)
        logits, states = forward_with_cache(
            config, weights, last, state.states, None, dtype
        )
        return _drawn(settings, state._replace(states=states), logits)

    return jax.lax.while_loop(unfinished, step, state)


def _drawn(settings: Settings, state: DecodeState, logits: jax.Array) -> DecodeState:
    """Draws one more token for each row that has not ended."""
    knobs, stops = settings
    index = state.drawn
    keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, index)
    tokens = jax.vmap(draw, (0, 0, 0, None))(keys, logits, state.seen, knobs)
    tokens = jnp.where(state.ended, 0, tokens)
    seen = state.seen
    return state._replace(
        drawn=index + 1,
        tokens=jax.lax.dynamic_update_slice_in_dim(
            state.tokens, tokens[:, None], index, axis=1
        ),
        lengths=state.lengths + ~state.ended,
        ended=state.ended | (tokens[:, None] == stops[None]).any(axis=1),
        seen=None if seen is None else _mark(seen, tokens[:, None]),
    )


def _mark(seen: jax.Array, tokens: jax.Array) -> jax.Array:
    """Sets seen [B, V] at each row's tokens [B, T]; those past V are left out."""
    rows = jnp.arange(seen.shape[0])[:, None]
    return seen.at[rows, tokens].set(True, mode="drop")
