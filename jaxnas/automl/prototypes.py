"""Small versions of large shapes, really trained: does the prediction rank them?"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from arch import ArchitectureConfig
from arch.families import USES, has_heads
from arch.scaling.predicted_loss import predicted_loss
from jaxnas.api import make_config_evaluator
from jaxnas.config import RunConfig
from jaxnas.results.correlation import spearman

WIDTH, LAYERS = 128, 6  # of the largest prototypes
_STEP = 16  # widths are multiples of it


class Prototype(NamedTuple):
    """A shape's small version and what became of it."""

    config: ArchitectureConfig
    predicted: float  # nats a token, of the prototype itself
    loss: float | None  # measured on held-out files; None if it failed
    bits_per_byte: float | None


class Prototypes(NamedTuple):
    """A prototype for each shape, in their order, and how well they are ranked.

    Attributes:
      each: the prototypes.
      spearman_of_shapes: of the shapes' predicted loss with the measured loss.
      spearman_of_prototypes: the same of the prototypes' own predicted loss.
    """

    each: list[Prototype]
    spearman_of_shapes: float | None
    spearman_of_prototypes: float | None


def scaled_down(
    configs: Sequence[ArchitectureConfig], vocab_size: int, window: int
) -> list[ArchitectureConfig]:
    """The configs, the largest of them `WIDTH` wide and `LAYERS` deep.

    Ratios of width, depth and feed-forward size stay, and the size of a head as
    nearly as the width allows; so do query heads for each key and value head.
    """
    width = WIDTH / max(config.hidden_dim for config in configs)
    depth = LAYERS / max(config.num_layers for config in configs)
    small = []
    for config in configs:
        hidden = max(1, round(config.hidden_dim * width / _STEP)) * _STEP
        heads, kv_heads = config.num_heads, config.kv_heads
        if has_heads(config.arch_type):
            heads = _divisor_near(hidden // 2, hidden / config.head_dim)
        if "kv_heads" in USES[config.arch_type]:
            shared = config.num_heads // config.key_value_heads
            kv_heads = _divisor_near(heads, heads / shared)
        small.append(
            dataclasses.replace(
                config,
                hidden_dim=hidden,
                num_layers=max(1, round(config.num_layers * depth)),
                num_heads=heads,
                kv_heads=kv_heads,
                vocab_size=vocab_size,
                max_seq_length=window,
            )
        )
    return small


def train_prototypes(
    configs: Sequence[ArchitectureConfig],
    losses: Sequence[float],
    steps: int,
    seed: int,
    report: Callable[[int, int, float], None] = lambda *_: None,
) -> Prototypes:
    """Trains a small version of each config on real code.

    Args:
      configs: the shapes.
      losses: predicted for them.
      steps: of each training.
      seed: of the training.
      report: told steps done, steps in all, and the last loss.
    """
    open_settings = RunConfig(seed=seed, epochs=1, samples=1)
    batch = open_settings.resolve("cpu").batch
    evaluator = make_config_evaluator(
        RunConfig(seed=seed, preset="small", epochs=1, samples=steps * batch)
    )
    settings = evaluator.task.settings
    small = scaled_down(configs, evaluator.task.dataset.vocab_size, settings.window)
    tokens = steps * settings.batch * settings.window
    evaluations = evaluator.evaluate(list(dict.fromkeys(small)), report)
    evaluator.trainer.close()
    each = []
    for config in small:
        metrics = evaluations[config].metrics
        each.append(
            Prototype(
                config=config,
                predicted=predicted_loss(config, tokens),
                loss=None if metrics is None else metrics.loss,
                bits_per_byte=None if metrics is None else metrics.bits_per_byte,
            )
        )
    return Prototypes(
        each=each,
        spearman_of_shapes=_spearman(losses, each),
        spearman_of_prototypes=_spearman(
            [prototype.predicted for prototype in each], each
        ),
    )


def _spearman(predicted: Sequence[float], each: Sequence[Prototype]) -> float | None:
    """Over those that succeeded; None where there is nothing to rank."""
    losses = [prototype.loss for prototype in each if prototype.loss is not None]
    trained = [prototype.loss is not None for prototype in each]
    return spearman(list(itertools.compress(predicted, trained)), losses, least=3)


def _divisor_near(number: int, target: float) -> int:
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    return min(divisors, key=lambda divisor: abs(divisor - target))
