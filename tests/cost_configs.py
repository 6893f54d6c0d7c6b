"""Configs whose costs are checked."""

import dataclasses
import itertools

from arch.config import ArchitectureConfig
from arch.families import FAMILIES
from arch.published import KNOWN

SMALL = ArchitectureConfig(
    arch_type="transformer",
    num_layers=3,
    hidden_dim=96,
    num_heads=4,
    ffn_multiplier=2.5,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=500,
)


def of_family(family, **changes):
    return dataclasses.replace(SMALL, arch_type=family, **changes)


LLAMA_7B = KNOWN["Llama-2-7B"].config
VARIANTS = [
    of_family(family, **changes)
    for family, changes in itertools.product(
        FAMILIES,
        (
            {},
            {"tie_embeddings": True, "activation": "gelu", "kv_heads": 1},
            {"quantization": "int8", "pruning_ratio": 0.35, "num_layers": 1},
            {"quantization": "int4", "pruning_ratio": 0.9, "vocab_size": 77},
            {"position_encoding": "alibi", "num_heads": 2, "ffn_dim": 50},
            {"attention_dim": 48, "num_heads": 2, "num_layers": 1},
            {"hidden_dim": 40, "inner_dim": 70, "position_encoding": "absolute"},
        ),
    )
]
