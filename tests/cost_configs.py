"""Configs whose costs are checked."""

import dataclasses
import itertools

from arch.config import ArchitectureConfig
from arch.families import FAMILIES

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


# (a published model, its parameters)
PUBLISHED = {
    "Llama-2-7B": (
        of_family(
            "transformer",
            num_layers=32,
            hidden_dim=4096,
            num_heads=32,
            ffn_dim=11008,
            vocab_size=32000,
        ),
        6_738_415_616,
    ),
    "Mistral-7B": (
        of_family(
            "grouped_query_attention",
            num_layers=32,
            hidden_dim=4096,
            num_heads=32,
            kv_heads=8,
            ffn_dim=14336,
            vocab_size=32000,
        ),
        7_241_732_096,
    ),
    "TinyLlama-1.1B": (
        of_family(
            "grouped_query_attention",
            num_layers=22,
            hidden_dim=2048,
            num_heads=32,
            kv_heads=4,
            ffn_dim=5632,
            vocab_size=32000,
        ),
        1_100_048_384,
    ),
    "mamba-130m": (
        of_family(
            "mamba",
            num_layers=24,
            hidden_dim=768,
            vocab_size=50280,
            tie_embeddings=True,
        ),
        129_135_360,
    ),
    "rwkv-4-169m": (
        of_family(
            "rwkv", num_layers=12, hidden_dim=768, ffn_dim=3072, vocab_size=50277
        ),
        169_342_464,
    ),
}
LLAMA_7B = PUBLISHED["Llama-2-7B"][0]
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
            {"hidden_dim": 40, "inner_dim": 70, "position_encoding": "absolute"},
        ),
    )
]
