"""Small models of every family and width, to calibrate with and to check."""

import dataclasses

import jax
import numpy as np

from arch import ArchitectureConfig
from arch.cost import kept_channels, parameters
from arch.families import FAMILIES
from arch.spaces import SPACES
from jaxnas.compress import pruned_config
from jaxnas.keys import key_of

MOST_PARAMETERS = 40_000_000  # what takes a second to run says no more
VOCABULARIES = (1024, 8192)  # of the two presets
PROMPT = 128  # tokens
ROOM = 32  # tokens drawn behind them

_SPACE = SPACES["full"]


def draw_configs(seed: int, number: int) -> list[ArchitectureConfig]:
    """Distinct small models of the full space, as they are executed.

    Families and widths take turns: any six in a row are of six families and six
    widths, any 36 hold every pair. All else is drawn. A longer list begins with
    the shorter one.

    Args:
      seed: decides the draw.
      number: how many.
    """
    rng = np.random.default_rng(
        np.asarray(jax.random.key_data(key_of(seed, "latency"))).tolist()
    )
    widths = _SPACE.values("hidden_dim")
    configs: dict[ArchitectureConfig, None] = {}
    while len(configs) < number:
        lap, family = divmod(len(configs), len(FAMILIES))
        width = widths[(family + lap) % len(widths)]
        config = _draw(rng, FAMILIES[family], width)
        if config is not None and parameters(config) <= MOST_PARAMETERS:
            configs.setdefault(config)
    return list(configs)


def _draw(
    rng: np.random.Generator, family: str, width: int
) -> ArchitectureConfig | None:
    genome = _SPACE.genome_at(int(rng.integers(_SPACE.total)))
    vocabulary = int(rng.choice(VOCABULARIES))
    genome[0] = _SPACE.values("arch_type").index(family)
    genome[2] = _SPACE.values("hidden_dim").index(width)
    try:
        return as_executed(_SPACE.decode(genome, vocab_size=vocabulary))
    except ValueError:  # heads that do not divide this width
        return None


def as_executed(config: ArchitectureConfig) -> ArchitectureConfig:
    """The model that runs: pruned, its weights as wide as activations.

    Quantised weights are stored so; what XLA multiplies with is decoded.
    """
    kept = kept_channels(config.inner_channels, config.pruning_ratio)
    return dataclasses.replace(
        pruned_config(config, kept),
        quantization="fp16",
        attention_dropout=0.0,
        residual_dropout=0.0,
        max_seq_length=max(config.max_seq_length, PROMPT + ROOM),
    ).canonical()
