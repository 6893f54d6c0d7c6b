"""Genes: what of a config a search space may choose, and what it means."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from arch.config import ArchitectureConfig
from arch.families import USES, VARIANTS

# What a condition leaves out: configs with one of these values in each gene.
Condition: TypeAlias = Mapping[str, Sequence[Any]]

# The genes of the spaces that are named in `arch.spaces.SPACES`, but for the last.
GENES = (
    "arch_type",
    "num_layers",
    "hidden_dim",
    "num_heads",
    "ffn_multiplier",
    "normalization",
    "activation",
    "position_encoding",
    "attention_dropout",
    "residual_dropout",
    "quantization",
    "pruning_ratio",
)

# Genes that are no fields of a config: into how many parts another field is split.
DERIVED = {
    "head_dim": ("num_heads", "hidden_dim"),  # channels of a head
    "kv_group": ("kv_heads", "num_heads"),  # query heads to a head of keys and values
}

# What the data decides, and what is a gene's to say in another way.
NO_GENES = ("vocab_size", "max_seq_length")

ALLOWED_GENES = (
    *(
        field.name
        for field in dataclasses.fields(ArchitectureConfig)
        if field.name not in (*NO_GENES, *VARIANTS)
    ),
    *DERIVED,
)

# The fields of a config for which a space has no gene.
DEFAULTS: dict[str, Any] = {
    "arch_type": "transformer",
    "num_heads": 4,
    "ffn_multiplier": 3.0,
    "normalization": "rmsnorm",
    "activation": "swiglu",
    "position_encoding": "rope",
}

# The genes that decide together whether a config exists. To repair a genome
# those on the right change first: heads before all, the family last.
COUPLED = (
    "arch_type",
    "hidden_dim",
    "normalization",
    "position_encoding",
    "kv_heads",
    "num_heads",
    "kv_group",
    "head_dim",
)


def used_by(family: str, genes: Sequence[str]) -> list[bool]:
    """Which of the genes a family uses."""
    decided = [DERIVED[gene][0] if gene in DERIVED else gene for gene in genes]
    return [field in USES[family] for field in decided]


def value_of(config: ArchitectureConfig, gene: str) -> Any:
    """What a gene would have to be for a config."""
    if gene == "head_dim":
        return config.head_dim
    if gene == "kv_group":
        return config.num_heads // config.key_value_heads
    if gene == "ffn_multiplier" and config.ffn_dim is not None:
        return config.ffn_dim / config.hidden_dim
    known = {
        "ffn_dim": config.feedforward_dim,
        "kv_heads": config.key_value_heads,
        "inner_dim": config.inner_channels,
    }
    value = getattr(config, gene)
    return known.get(gene) if value is None else value
