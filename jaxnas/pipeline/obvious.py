"""The obvious model of a size: what one would train without any search."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from arch import ArchitectureConfig
from arch.cost import non_embedding_parameters, size_mib, training_flops
from jaxnas.config import Settings
from jaxnas.presets import NO_LIMIT
from jaxnas.report.quality import shape_words

# Hidden sizes: steps of a third at most, so that one is close below any limit.
WIDTHS = (
    *(32, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512),
    *(640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096),
)

# Training tokens for each parameter outside the embeddings, where compute is spent
# best (Hoffmann et al. 2022, arXiv:2203.15556).
TOKENS_PER_PARAMETER = 20.0

COSTLIEST = 2.0  # FLOPs of a training step, in those of the winner


def obvious_models(
    fits: Callable[[ArchitectureConfig], bool], tokens: float, **fields: Any
) -> list[ArchitectureConfig]:
    """Llama-like models of usual proportions, in two sizes.

    The largest that fits, and the one that comes closest to `TOKENS_PER_PARAMETER`.
    At each width input and output have a matrix each, or share one where only that
    fits.

    Args:
      fits: whether a model is within the limits.
      tokens: that it will be trained on, repetitions counted.
      **fields: `vocab_size` and `max_seq_length` of the configs.

    Returns:
      Canonical configs, the smaller first; one if both are the same, none if no
      model fits.
    """
    ladder = [model for width in WIDTHS if (model := _of_width(width, fits, fields))]
    if not ladder:
        return []
    suited = min(ladder, key=lambda model: abs(math.log(_surplus(model, tokens))))
    return list(dict.fromkeys([suited, ladder[-1]]))


def llama_like(width: int, **fields: Any) -> ArchitectureConfig:
    """The usual proportions (Touvron et al. 2023, arXiv:2302.13971) at any width.

    Heads of 64 channels, or four of them in narrow models; a gated feed-forward
    layer of 8/3 of the width, in whole multiples of 32; a layer for each 32
    channels of width, from 2 to 24. No dropout, stored as fp16.
    """
    return ArchitectureConfig(
        arch_type="transformer",
        num_layers=max(2, min(24, width // 32)),
        hidden_dim=width,
        num_heads=max(4, width // 64),
        ffn_multiplier=8 / 3,
        ffn_dim=32 * round(width * 8 / 3 / 32),
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        **fields,
    ).canonical()


def _of_width(
    width: int, fits: Callable[[ArchitectureConfig], bool], fields: dict[str, Any]
) -> ArchitectureConfig | None:
    for tied in (False, True):
        model = llama_like(width, tie_embeddings=tied, **fields)
        if fits(model):
            return model
    return None


def _surplus(model: ArchitectureConfig, tokens: float) -> float:
    """Tokens there are over tokens that the model deserves."""
    return max(tokens, 1.0) / (TOKENS_PER_PARAMETER * non_embedding_parameters(model))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What the obvious models share with the winner.

    Attributes:
      allowed: whether a model is within the run's own limits.
      size: MiB at most.
      why: whose bytes these are, in words.
      flops: of a training step, at most: those of the winner x `COSTLIEST`.
    """

    allowed: Callable[[ArchitectureConfig], bool]
    size: float
    why: str
    flops: float

    @classmethod
    def of(
        cls,
        config: Settings,
        winner: ArchitectureConfig,
        allowed: Callable[[ArchitectureConfig], bool],
    ) -> "Limits":
        """The limits of a run.

        Where size is weighed and `max_size` was left as it is, it says nothing about
        what is wanted: then a model may be as large as the winner, or as the size that
        costs no fitness.
        """
        if config.size_weight == 0 or config.max_size != NO_LIMIT:
            size, why = config.max_size, "max-size"
        else:
            size, why = max(
                (config.size_target, "the size target"),
                (size_mib(winner), "as large as the winner"),
            )
        return cls(
            allowed=allowed,
            size=size,
            why=why,
            flops=COSTLIEST * training_flops(winner, tokens=winner.max_seq_length),
        )

    def within(self, model: ArchitectureConfig) -> bool:
        """Whether a model is as small and as fast as it has to be."""
        return size_mib(model) <= self.size and self.allowed(model)

    def affordable(self, model: ArchitectureConfig) -> bool:
        """Whether it costs little enough to be trained beside the winner."""
        flops = training_flops(model, tokens=model.max_seq_length)
        return self.within(model) and flops <= self.flops


class ObviousModels(NamedTuple):
    """The obvious models of a run, the smaller first, and why these, in a line."""

    models: list[ArchitectureConfig]
    why: str


def choose_obvious(
    limits: Limits, tokens: float, winner: ArchitectureConfig
) -> ObviousModels:
    """Which obvious models are trained beside the winner.

    Args:
      limits: see `Limits`.
      tokens: that the winner is trained on in all.
      winner: gives the vocabulary and the longest sequence.
    """
    fields = {
        "vocab_size": winner.vocab_size,
        "max_seq_length": winner.max_seq_length,
    }
    models = obvious_models(limits.affordable, tokens, **fields)
    if not models:
        return ObviousModels([], f"no obvious model fits into {limits.size:.4g} MiB")
    why = "; ".join(_reasons(models, limits, tokens, fields))
    return ObviousModels(models, f"the obvious models (Llama-like) train: {why}")


def _reasons(
    models: list[ArchitectureConfig],
    limits: Limits,
    tokens: float,
    fields: dict[str, Any],
) -> Iterator[str]:
    *smaller, largest = models
    for model in smaller:
        yield f"{shape_words(model)}, of a size for {tokens:,.0f} training tokens"
    within = f"{limits.size:.4g} MiB ({limits.why})"
    yield f"{shape_words(largest)}, the largest within {within}"
    if obvious_models(limits.within, tokens, **fields)[-1] != largest:
        yield (
            f"larger ones are left out: a step of theirs takes over "
            f"{COSTLIEST:g} times the winner's FLOPs"
        )
