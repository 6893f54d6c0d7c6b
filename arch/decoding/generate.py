"""Text generation: reads the prompts, then draws token after token.

Prompts are padded to a few lengths, and what is drawn and how much of it is
data: another prompt of about the same length compiles nothing new, nor does
another value of a setting, unless it switches a rule on or off.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch.config import ArchitectureConfig
from arch.decoding.loop import DecodeState, Settings, decode_loop, start
from arch.decoding.sampling import GREEDY, Sampling
from arch.decoding.unrolled import Weights
from arch.families import USES

MIN_BUCKET = 16  # tokens


class Generated(NamedTuple):
    """What was drawn, without the prompts."""

    tokens: np.ndarray  # i32[B, N], 0 behind a row's end
    lengths: np.ndarray  # i32[B], tokens of each row, its stop token included


def generate(
    key: jax.Array,
    config: ArchitectureConfig,
    weights: Weights,
    prompts: Sequence[Sequence[int]],
    *,
    max_new: int,
    sampling: Sampling = GREEDY,
    stop_tokens: Sequence[int] = (),
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Generated:
    """Goes on with each prompt.

    Args:
      key: PRNG key, consumed. What a row draws does not depend on the others.
      config: of the model.
      weights: its parameters, from `arch.decoding.unrolled.unstack`.
      prompts: token ids of each row, at least one.
      max_new: N, tokens to draw for a row at most.
      sampling: how they are drawn.
      stop_tokens: ids that end a row.
      dtype: of the residual stream and of what enters a matrix product.

    Raises:
      ValueError: no tokens, ids outside the vocabulary, or more tokens than the
        position encoding was made for (see `position_limit`).
    """
    *_, last = stream(
        key,
        config,
        weights,
        prompts,
        max_new=max_new,
        sampling=sampling,
        stop_tokens=stop_tokens,
        dtype=dtype,
        block=max_new,
    )
    return last


def stream(
    key: jax.Array,
    config: ArchitectureConfig,
    weights: Weights,
    prompts: Sequence[Sequence[int]],
    *,
    max_new: int,
    sampling: Sampling = GREEDY,
    stop_tokens: Sequence[int] = (),
    dtype: jax.typing.DTypeLike = jnp.float32,
    block: int = 8,
) -> Iterator[Generated]:
    """As `generate`, with all that was drawn so far after every `block` tokens.

    The first comes with the first token. The tokens are those of `generate`,
    whatever the block.
    """
    check(config, prompts, max_new, stop_tokens)
    if block < 1:
        raise ValueError(f"block={block} must be at least 1")
    length, room = bucket(max(map(len, prompts))), bucket(max_new)
    tokens = np.zeros((len(prompts), length), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths = np.asarray([len(prompt) for prompt in prompts], np.int32)
    settings = settings_of(sampling, stop_tokens)
    progress = start(config, dtype, room, weights, settings, key, tokens, lengths)
    drawn = go_on(config, dtype, weights, settings, progress, max_new, block)
    for progress in drawn:
        yield so_far(progress, max_new)


def settings_of(sampling: Sampling, stop_tokens: Sequence[int]) -> Settings:
    """How tokens are drawn, and what ends a row, as the programs take them.

    There is room for a few stop tokens; no token is -1.
    """
    stops = np.full(bucket(len(stop_tokens)), -1, np.int32)
    stops[: len(stop_tokens)] = stop_tokens
    return sampling.knobs(), jnp.asarray(stops)


def go_on(
    config: ArchitectureConfig,
    dtype: jax.typing.DTypeLike,
    weights: Weights,
    settings: Settings,
    progress: DecodeState,
    max_new: int,
    block: int,
) -> Iterator[DecodeState]:
    """What was begun, and again after every `block` tokens; each uses up the last."""
    yield progress
    while (drawn := int(progress.drawn)) < max_new and not progress.ended.all():
        until = jnp.int32(min(drawn + block, max_new))
        progress = decode_loop(config, dtype, weights, settings, progress, until)
        yield progress


def so_far(progress: DecodeState, max_new: int) -> Generated:
    """What was drawn, `max_new` tokens of a row at most."""
    return Generated(np.array(progress.tokens)[:, :max_new], np.array(progress.lengths))


def bucket(tokens: int) -> int:
    """The next of 16, 24, 32, 48, 64, 96, ...: few shapes, little padding."""
    size = MIN_BUCKET
    while size < tokens:
        size *= 2
    smaller = size // 4 * 3
    return smaller if size > MIN_BUCKET and tokens <= smaller else size


def position_limit(config: ArchitectureConfig) -> int | None:
    """The longest sequence that the model can read on in, prompt included.

    Absolute and rotary positions mean nothing past `max_seq_length`: no model
    was trained on them. ALiBi was made to go on (arXiv:2108.12409), and Mamba
    and RWKV have no positions: None.
    """
    positioned = "position_encoding" in USES[config.arch_type]
    endless = not positioned or config.position_encoding == "alibi"
    return None if endless else config.max_seq_length


def check(
    config: ArchitectureConfig,
    prompts: Sequence[Sequence[int]],
    max_new: int,
    stop_tokens: Sequence[int] = (),
) -> None:
    """Checks what `generate` is given; errors as there."""
    if max_new < 1:
        raise ValueError(f"max_new={max_new} must be at least 1")
    if not prompts or not all(map(len, prompts)):
        raise ValueError("a prompt must have at least one token")
    for name, ids in (*(("prompt", ids) for ids in prompts), ("stop", stop_tokens)):
        for token in ids:
            if not 0 <= token < config.vocab_size:
                raise ValueError(
                    f"{name} token {token} is not in 0 to {config.vocab_size - 1}"
                )
    longest, limit = max(map(len, prompts)), position_limit(config)
    if limit is not None and longest + max_new > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and max_new={max_new} are more than "
            f"max_seq_length={limit}, and {config.position_encoding} positions end "
            f"there"
        )
