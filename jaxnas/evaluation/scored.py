"""The quality of trained weights as they would be exported."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig, build_model
from arch.config import QUANTIZATIONS
from arch.cost import kept_channels
from jaxnas.compress import prune_in_place, round_weights
from jaxnas.evaluation.task import Task
from jaxnas.evaluation.trained import training_config
from jaxnas.train.loop import logits_of, next_token_losses

SCORE_BATCH = 8  # windows scored at once


class Compression(NamedTuple):
    """What is done to the weights after training; it changes no training."""

    quantization: str
    pruning_ratio: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics:
    """Quality over the targets of some windows."""

    accuracy: float  # share of next tokens that are the first choice
    loss: float  # nats per token
    perplexity: float  # exp of it
    bits_per_byte: float  # compares across tokenizers


def score(
    config: ArchitectureConfig,
    task: Task,
    params: dict,
    windows: np.ndarray,
    compressions: Sequence[Compression],
) -> list[Metrics | None]:
    """Quality after each of the compressions, on the same windows.

    One compiled program serves them all: pruned channels are zeroed in place,
    which is the function of the smaller model that an export would cut out. A
    lone compression is compiled in.

    Args:
      config: compression is left out of account.
      task: see `Task`.
      params: of the config's model, uncompressed.
      windows: i32[N, T+1].
      compressions: what to do to the weights first.

    Returns:
      Metrics for each compression, None where a loss is not finite.
    """
    padded = np.resize(
        windows, (-(-len(windows) // SCORE_BATCH), SCORE_BATCH, windows.shape[1])
    )
    scorer = _scorer(training_config(config), len(compressions) == 1)
    found = []
    for compression in compressions:
        sums = scorer(
            params,
            padded,
            len(windows),
            task.token_bytes,
            QUANTIZATIONS.index(compression.quantization),
            kept_channels(config.inner_channels, compression.pruning_ratio),
        )
        found.append(_metrics(windows[:, 1:].size, *map(np.asarray, sums)))
    return found


@functools.lru_cache(maxsize=1)
def _scorer(config: ArchitectureConfig, compiled_in: bool):
    """jit of (params, windows, number, bytes, quantization, kept) -> sums.

    The last two are data, or constants if they are to be compiled in. It
    computes in float32 on every backend: a bfloat16 product would round the
    weights once more, and hide what storing them at fp16 or int8 costs.
    """
    model = build_model(config)

    def sums(params, windows, number, token_bytes, quantization, kept):
        params = round_weights(prune_in_place(params, kept), quantization)

        def batch(args):
            tokens, first = args
            counted = (first + jnp.arange(len(tokens)) < number)[:, None]
            logits = logits_of(model, params, tokens[:, :-1])
            targets = tokens[:, 1:]
            return (
                jnp.sum(next_token_losses(logits, targets) * counted),
                jnp.sum((jnp.argmax(logits, axis=-1) == targets) & counted),
                jnp.sum(token_bytes[targets] * counted),
            )

        firsts = jnp.arange(len(windows)) * windows.shape[1]
        with jax.default_matmul_precision("float32"):
            return jax.lax.map(batch, (windows, firsts))

    return jax.jit(sums, static_argnums=(4, 5) if compiled_in else ())


def _metrics(targets: int, losses, hits, token_bytes) -> Metrics | None:
    """From sums per batch: added on the host, in double precision."""
    nats = losses.astype(np.float64).sum()
    if not np.isfinite(nats):
        return None
    loss = float(nats / targets)
    return Metrics(
        accuracy=float(hits.sum() / targets),
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_byte=float(nats / math.log(2) / token_bytes.astype(np.float64).sum()),
    )
