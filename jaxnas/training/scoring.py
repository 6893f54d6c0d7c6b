"""The quality of trained weights as they would be exported."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig, LanguageModel, Params, build_model
from arch.config import QUANTIZATIONS
from arch.cost import kept_channels
from arch.padding import with_constants
from arch.traits import Traits
from jaxnas.compress import prune_in_place, pruned_in_place, round_weights
from jaxnas.training.loop import logits_of, next_token_losses
from jaxnas.training.members import stack
from jaxnas.training.single import training_config
from jaxnas.training.task import Task

SCORE_BATCH = 8  # windows scored at once

# Over each window: nats, hits, bytes.
Sums: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


class Compression(NamedTuple):
    """What is done to the weights after training; it changes no training.

    Attributes:
      quantization: of QUANTIZATIONS; None leaves weights as they are, which is for
        those that were read as they are stored.
      pruning_ratio: as a config's.
    """

    quantization: str | None
    pruning_ratio: float


AS_IT_IS = Compression(None, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics:
    """Quality over the targets of some windows."""

    accuracy: float  # share of next tokens that are the first choice
    loss: float  # nats per token
    perplexity: float  # exp of it
    bits_per_byte: float  # compares across tokenizers


class WindowSums(NamedTuple):
    """What a model's metrics are made of, window by window.

    Attributes:
      targets: tokens predicted in each window.
      nats: f64[N].
      hits: f64[N], targets that are the first choice.
      bytes: f64[N], of the targets.
    """

    targets: int
    nats: np.ndarray
    hits: np.ndarray
    bytes: np.ndarray

    def metrics(self) -> Metrics | None:
        """Over all windows; None if a loss is not finite."""
        nats, targets = self.nats.sum(), self.targets * len(self.nats)
        if not np.isfinite(nats):
            return None
        loss = float(nats / targets)
        return Metrics(
            accuracy=float(self.hits.sum() / targets),
            loss=loss,
            perplexity=math.exp(min(loss, 700.0)),
            bits_per_byte=float(nats / math.log(2) / self.bytes.sum()),
        )


def score(
    config: ArchitectureConfig,
    task: Task,
    params: Params,
    windows: np.ndarray,
    compressions: Sequence[Compression],
) -> list[Metrics | None]:
    """Quality after each of the compressions, on the same windows.

    One compiled program serves them all.

    Args:
      config: compression is left out of account.
      task: see `Task`.
      params: of the config's model, uncompressed.
      windows: i32[N, T+1].
      compressions: what to do to the weights first.

    Returns:
      Metrics for each compression, None where a loss is not finite.
    """
    sums = _sums(config, task, params, windows, compressions)
    return [one.metrics() for one in sums]


def score_windows(
    config: ArchitectureConfig, task: Task, params: Params, windows: np.ndarray
) -> WindowSums:
    """What the config's own compression leaves, window by window; see `score`."""
    own = Compression(config.quantization, config.pruning_ratio)
    return _sums(config, task, params, windows, [own])[0]


def score_stored(
    config: ArchitectureConfig, task: Task, params: Params, windows: np.ndarray
) -> WindowSums:
    """Of a saved model, whose weights are pruned and rounded already."""
    return _sums(config, task, params, windows, [AS_IT_IS])[0]


def _sums(
    config: ArchitectureConfig,
    task: Task,
    params: Params,
    windows: np.ndarray,
    compressions: Sequence[Compression],
) -> list[WindowSums]:
    model = training_config(config)
    found = []
    for one in compressions:
        stored = stack([compressed(config, params, one)])
        scorer = functools.partial(_scorer(model), stored, None)
        found.append(sums_of(scorer, [config], task, windows, [AS_IT_IS])[0][0])
    return found


def compressed(config: ArchitectureConfig, params: Params, one: Compression) -> Params:
    """The weights as they are stored and read back, by the host.

    Args:
      config: whose compression is left out of account.
      params: of the config's model.
      one: what to do to them.

    Returns:
      The "params" of the same shapes, NumPy arrays: removed channels are zeros.
    """
    host = jax.tree.map(np.asarray, params)
    pruned = pruned_in_place(config, host, one.pruning_ratio)
    index = _index(one)
    return pruned if index is None else round_weights(pruned, index, xp=np)


def scores_of(
    scorer: Callable,
    configs: Sequence[ArchitectureConfig],
    task: Task,
    windows: np.ndarray,
    compressions: Sequence[Compression],
    put: Callable = lambda leaf: leaf,
) -> list[list[Metrics | None]]:
    """As `sums_of`, the metrics over all windows; None where a loss is not finite."""
    found = sums_of(scorer, configs, task, windows, compressions, put)
    return [[one.metrics() for one in members] for members in found]


def sums_of(
    scorer: Callable,
    configs: Sequence[ArchitectureConfig],
    task: Task,
    windows: np.ndarray,
    compressions: Sequence[Compression],
    put: Callable = lambda leaf: leaf,
) -> list[list[WindowSums]]:
    """Calls a scorer for each of the compressions.

    Args:
      scorer: `scoring`, with the members' parameters and traits given.
      configs: the members.
      task: see `Task`.
      windows: i32[N, T+1].
      compressions: what to do to the weights first.
      put: takes an array to the scorer's device.

    Returns:
      For each compression each member's sums.
    """
    number = len(windows)
    shape = (-(-number // SCORE_BATCH), SCORE_BATCH, windows.shape[1])
    padded = put(np.resize(windows, shape).astype(np.int32))
    token_bytes, count = put(task.token_bytes), put(np.int32(number))
    found = []
    for one in compressions:
        quantization = put(np.int32(_index(one) or 0))
        kept = [kept_channels(c.inner_channels, one.pruning_ratio) for c in configs]
        kept = put(np.asarray(kept, np.int32))
        scored = scorer(padded, count, token_bytes, quantization, kept)
        sums = [np.asarray(one, np.float64) for one in scored]
        sums = [one.reshape(len(one), -1)[:, :number] for one in sums]
        length = windows.shape[1] - 1
        found.append(
            [WindowSums(length, *(one[m] for one in sums)) for m in range(len(configs))]
        )
    return found


def scoring(model: LanguageModel, lone: Compression | None, vmapped: bool) -> Callable:
    """The scores of compressed members, to be jitted.

    Pruned channels are zeroed in place, which is the function of the smaller
    model that an export would cut out. To be given a model of float32: a bfloat16
    product would round the weights once more, and hide what storing them at fp16
    or int8 costs.

    Args:
      model: of the shape that holds the members.
      lone: the only compression, compiled in; None where it is data.
      vmapped: see `member_training`.

    Returns:
      (params [M], traits [M] or None, windows i32[N, B, T+1], number, token_bytes,
      quantization, kept i32[M]) -> (nats, hits, bytes), each [M, N, B]. The first
      `number` windows count; the last two are data unless there is a lone one.
    """

    def score_one(
        params: Params,
        traits: Traits | None,
        kept: jax.Array,
        windows: jax.Array,
        number: jax.Array,
        token_bytes: jax.Array,
        quantization: jax.Array,
    ) -> Sums:
        if traits is not None:
            traits = with_constants(traits, model.config, vmapped)
        own = quantization if lone is None else _index(lone)
        if lone is None or lone.pruning_ratio > 0:
            params = prune_in_place(params, kept)
        if own is not None:
            params = round_weights(params, own, traits)

        def batch(args: tuple[jax.Array, jax.Array]) -> Sums:
            tokens, first = args
            counted = (first + jnp.arange(len(tokens)) < number)[:, None]
            logits = logits_of(model, params, tokens[:, :-1], traits=traits)
            targets = tokens[:, 1:]
            return (
                jnp.sum(next_token_losses(logits, targets) * counted, axis=1),
                jnp.sum((jnp.argmax(logits, axis=-1) == targets) & counted, axis=1),
                jnp.sum(token_bytes[targets] * counted, axis=1),
            )

        firsts = jnp.arange(len(windows)) * windows.shape[1]
        with jax.default_matmul_precision("float32"):
            return jax.lax.map(batch, (windows, firsts))

    def score(
        params: Params,
        traits: Traits | None,
        windows: jax.Array,
        number: jax.Array,
        token_bytes: jax.Array,
        quantization: jax.Array,
        kept: jax.Array,
    ) -> Sums:
        shared = (windows, number, token_bytes, quantization)
        if vmapped:
            each = (0, 0, 0, *(None,) * len(shared))
            return jax.vmap(score_one, each)(params, traits, kept, *shared)
        one_by_one = lambda one: score_one(one[0], one[1], one[2], *shared)
        return jax.lax.map(one_by_one, (params, traits, kept))

    return score


def _index(compression: Compression) -> int | None:
    name = compression.quantization
    return None if name is None else QUANTIZATIONS.index(name)


@functools.lru_cache(maxsize=4)  # the winner and what trains beside it
def _scorer(config: ArchitectureConfig) -> Callable:
    return jax.jit(scoring(build_model(config), AS_IT_IS, vmapped=False))
