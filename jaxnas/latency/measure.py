"""Prefill and decode by the clock, with the programs that `generate` runs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig
from arch.decoding.generate import bucket
from arch.decoding.loop import DecodeState, Settings, decode_loop, start
from arch.decoding.sampling import GREEDY
from arch.decoding.unrolled import Weights, unstack
from arch.padding import parameter_shapes
from jaxnas.latency.configs import PROMPT, ROOM

BLOCK = 8  # tokens of a call while decoding, as `generate` streams them
ROUNDS = 9  # many and short: a busy moment hits all models, each of them once
SECONDS = 0.06  # of a round of one model at least, warm-up left out


class Spread(NamedTuple):
    """Milliseconds of one thing."""

    median: float  # over the rounds, of the quickest call of each
    least: float
    greatest: float


class Measured(NamedTuple):
    """One model by the clock."""

    prefill: Spread  # of 128 tokens at batch 1, the first token drawn
    decode: Spread  # of each token after them

    def to_dict(self) -> dict[str, dict[str, float]]:
        """As JSON types."""
        return {name: spread._asdict() for name, spread in self._asdict().items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, float]]) -> "Measured":
        """The inverse of `to_dict`."""
        return cls(Spread(**values["prefill"]), Spread(**values["decode"]))


class Programs(NamedTuple):
    """A model's two programs, compiled."""

    config: ArchitectureConfig
    weights: Weights  # their shapes
    prefill: jax.stages.Compiled
    decode: jax.stages.Compiled


def measure(
    configs: Sequence[ArchitectureConfig],
    device: jax.Device,
    dtype: jax.typing.DTypeLike,
    threads: int,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Measured]:
    """Compiles and times the models, in rounds that take all in turn.

    Args:
      configs: see `as_executed`.
      device: to run on.
      dtype: models compute in.
      threads: that compile, before anything is timed.
      report: told what is going on, how many are done, and of how many.
    """
    programs = []
    with ThreadPoolExecutor(threads) as pool:
        ready = pool.map(lambda config: compile_model(config, device, dtype), configs)
        for program in ready:
            programs.append(program)
            report("compiled", len(programs), len(configs))
    taken: list[list[tuple[float, float]]] = [[] for _ in configs]
    for turn in range(ROUNDS):
        for index, program in enumerate(programs):
            taken[index].append(_round(program, device))
            report("measured", turn * len(configs) + index + 1, ROUNDS * len(configs))
    return [Measured(*map(_spread, zip(*rounds, strict=True))) for rounds in taken]


def compile_model(
    config: ArchitectureConfig, device: jax.Device, dtype: jax.typing.DTypeLike
) -> Programs:
    """Ahead of time, from shapes alone."""
    weights = jax.eval_shape(unstack, parameter_shapes(config))
    there = jax.sharding.SingleDeviceSharding(device)
    spec = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there)
    weights, given = jax.tree.map(spec, (weights, _given()))
    settings, key, prompt, lengths = given
    prefill = start.lower(
        config, dtype, bucket(ROOM), weights, settings, key, prompt, lengths
    )
    progress = jax.tree.map(spec, prefill.out_info)
    until = jax.ShapeDtypeStruct((), jnp.int32, sharding=there)
    decode = decode_loop.lower(config, dtype, weights, settings, progress, until)
    return Programs(config, weights, prefill.compile(), decode.compile())


def _given() -> tuple[Settings, jax.Array, jax.Array, jax.Array]:
    """What both programs get beside the weights; the prompt's tokens are zeros."""
    stops = jnp.full(bucket(0), -1, jnp.int32)
    prompt = jnp.zeros((1, PROMPT), jnp.int32)
    lengths = jnp.full(1, PROMPT, jnp.int32)
    return (GREEDY.knobs(), stops), jax.random.key(0), prompt, lengths


def _round(program: Programs, device: jax.Device) -> tuple[float, float]:
    """Milliseconds of the quickest prefill and of a token of the quickest block."""
    weights = jax.block_until_ready(_random_weights(program.weights, device))
    settings, key, prompt, lengths = jax.device_put(_given(), device)
    prefill, decode = float("inf"), float("inf")
    ends = [
        jax.device_put(np.int32(end), device)
        for end in range(1 + BLOCK, ROOM + 1, BLOCK)
    ]
    calls, begin = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - begin < SECONDS:
        seconds, progress = _clocked(
            program.prefill, weights, settings, key, prompt, lengths
        )
        if calls:  # the first one warms up
            prefill = min(prefill, seconds)
        else:
            begin = time.perf_counter()
        for end in ends:
            seconds, progress = _clocked(
                program.decode, weights, settings, progress, end
            )
            if calls:
                decode = min(decode, seconds / BLOCK)
        calls += 1
    return 1e3 * prefill, 1e3 * decode


def _clocked(
    program: jax.stages.Compiled, *arguments: Any
) -> tuple[float, DecodeState]:
    begin = time.perf_counter()
    done = jax.block_until_ready(program(*arguments))
    return time.perf_counter() - begin, done


def _random_weights(shapes: Weights, device: jax.Device) -> Weights:
    """Small numbers, drawn once and repeated: speed does not depend on them."""
    pool = np.random.default_rng(0).normal(0, 0.02, 1 << 16).astype(np.float32)
    fill = lambda leaf: jax.device_put(
        np.resize(pool, leaf.shape).astype(leaf.dtype), device
    )
    return jax.tree.map(fill, shapes)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
