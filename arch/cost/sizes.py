"""The numbers a cost depends on: one config's, or a whole space's as columns."""

import functools
from typing import NamedTuple, TypeAlias

import numpy as np

from arch.config import MAMBA_RANK_DIVISOR, ArchitectureConfig
from arch.cost.pruning import kept_channels
from arch.families import has_heads

Count: TypeAlias = int | np.ndarray  # a Python int, or an int64 or float64 column
Amount: TypeAlias = float | np.ndarray  # as Count, and fractions too


class Storage(NamedTuple):
    """How a quantised row lies in the file: whole blocks, the last one padded."""

    block: Count  # weights in a block
    block_bytes: Count  # their bytes, the block's scale included


FP16_BYTES = 2  # of a norm's scale, a bias, and all else that is not quantised

# int8 is ggml's Q8_0 and int4 its Q4_0: 32 weights and one fp16 scale.
STORAGE = {
    "fp16": Storage(1, 2),
    "int8": Storage(32, 34),
    "int4": Storage(32, 18),
}


class Sizes(NamedTuple):
    """Every field after the family is an int or a column; columns broadcast."""

    arch_type: str
    layers: Count
    hidden: Count
    heads: Count
    attention: Count  # channels of all query heads
    kv_heads: Count  # of keys and values
    inner: Count  # feed-forward channels; Mamba's inner channels
    vocab: Count
    gated: Count  # 1 if the feed-forward layer has a gating matrix, else 0
    tied: Count  # 1 if the embedding is the head as well
    rotary: Count  # 1 if queries and keys are rotated
    alibi: Count  # 1 if scores take a linear bias
    storage: Storage
    qkv_bias: Count = 0  # 1 if queries, keys and values have biases
    biases: Count = 0  # 1 if other linear layers and norms have
    positions: Count = 0  # rows of a table of learned positions
    window: Count = 0  # tokens that attention reads at most, 0 for all
    rotary_dim: Count = 0  # channels of a head that are rotated, 0 for all
    shared_norm: Count = 0  # 1 if a layer has one norm for both branches
    head_bias: Count = 0  # 1 if the head has a bias

    @property
    def head_dim(self) -> Count:
        """Channels of one head."""
        return self.attention // self.heads

    @property
    def kv_channels(self) -> Count:
        """Channels of all key heads, and of all value heads."""
        return self.head_dim * self.kv_heads

    @property
    def step_rank(self) -> Count:
        """Rank of Mamba's step-size projection, hidden / 16 rounded up."""
        return (self.hidden + MAMBA_RANK_DIVISOR - 1) // MAMBA_RANK_DIVISOR


def in_window(sizes: Sizes, tokens: int) -> Count:
    """How many of the tokens attention reads: the last ones, where it has a window."""
    window = sizes.window
    return tokens - (tokens - window) * ((window > 0) & (window < tokens))


@functools.lru_cache(maxsize=1024)  # a candidate's costs are sums over the same
def sizes_of(config: ArchitectureConfig, *, pruned: bool = True) -> Sizes:
    """A config's sizes, as it is exported; with pruned=False as it is trained."""
    inner = config.inner_channels
    if pruned:
        inner = kept_channels(inner, config.pruning_ratio)
    return Sizes(
        arch_type=config.arch_type,
        layers=config.num_layers,
        hidden=config.hidden_dim,
        heads=config.num_heads,
        attention=config.attention_channels,
        kv_heads=config.key_value_heads,
        inner=inner,
        vocab=config.vocab_size,
        gated=int(config.gated),
        tied=int(config.tie_embeddings),
        rotary=int(config.position_encoding == "rope"),
        alibi=int(config.position_encoding == "alibi"),
        storage=STORAGE[config.quantization],
        qkv_bias=int(config.qkv_bias and has_heads(config.arch_type)),
        biases=int(config.biases and has_heads(config.arch_type)),
        positions=_learned(config),
        window=config.sliding_window or 0,
        rotary_dim=config.rotary_dim or 0,
        shared_norm=int(config.shared_norm),
        head_bias=int(config.head_bias),
    )


def _learned(config: ArchitectureConfig) -> int:
    learned = config.learned_positions and config.position_encoding == "absolute"
    return config.max_seq_length if learned and has_heads(config.arch_type) else 0
