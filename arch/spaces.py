"""The named search spaces."""

from arch.config import NORMALIZATIONS, POSITION_ENCODINGS, QUANTIZATIONS
from arch.families import FAMILIES
from arch.genes import GENES
from arch.space import Space


def _space(name: str, **choices: tuple) -> Space:
    return Space(name, tuple(choices[gene] for gene in GENES))


def _space_of_genes(name: str, **choices: tuple) -> Space:
    return Space(name, tuple(choices.values()), tuple(choices))


SPACES = {
    "minimal": _space(
        "minimal",
        arch_type=("transformer",),
        num_layers=(4, 6),
        hidden_dim=(256, 512),
        num_heads=(4, 8),
        ffn_multiplier=(4.0,),
        normalization=("layernorm",),
        activation=("gelu",),
        position_encoding=("absolute",),
        attention_dropout=(0.1,),
        residual_dropout=(0.1,),
        quantization=("fp16",),
        pruning_ratio=(0.0,),
    ),
    "medium": _space(
        "medium",
        arch_type=("transformer", "linear_transformer"),
        num_layers=(4, 6, 8, 12),
        hidden_dim=(256, 384, 512, 768),
        num_heads=(4, 6, 8, 12),
        ffn_multiplier=(2.0, 3.0, 4.0),
        normalization=("layernorm", "rmsnorm"),
        activation=("gelu", "silu"),
        position_encoding=("absolute", "rope"),
        attention_dropout=(0.0, 0.1),
        residual_dropout=(0.0, 0.1),
        quantization=("fp16", "int8"),
        pruning_ratio=(0.0, 0.2, 0.4),
    ),
    "full": _space(
        "full",
        arch_type=FAMILIES,
        num_layers=(2, 4, 6, 8, 12, 16),
        hidden_dim=(128, 256, 384, 512, 768, 1024),
        num_heads=(2, 4, 6, 8, 12, 16),
        ffn_multiplier=(2.0, 2.5, 3.0, 4.0),
        normalization=NORMALIZATIONS,
        activation=("gelu", "silu", "geglu", "swiglu"),
        position_encoding=POSITION_ENCODINGS,
        attention_dropout=(0.0, 0.05, 0.1, 0.2),
        residual_dropout=(0.0, 0.05, 0.1, 0.2),
        quantization=QUANTIZATIONS,
        pruning_ratio=(0.0, 0.2, 0.4, 0.6),
    ),
    # Models of a MiB or two, which learn something in seconds on a few CPU cores.
    "nano": _space_of_genes(
        "nano",
        arch_type=FAMILIES,
        num_layers=(2, 3, 4, 5, 6),
        hidden_dim=(32, 48, 64, 96, 128, 192),
        head_dim=(16, 32, 64),
        ffn_multiplier=(2.0, 3.0, 4.0),
        normalization=NORMALIZATIONS,
        activation=("gelu", "swiglu", "relu2"),
        position_encoding=POSITION_ENCODINGS,
        tie_embeddings=(False, True),
        quantization=QUANTIZATIONS,
        pruning_ratio=(0.0, 0.25),
    ),
    # For a GPU: deep and thin models among them, of 50 to 100 MB.
    "modern": _space_of_genes(
        "modern",
        arch_type=FAMILIES,
        num_layers=(6, 8, 12, 16, 20, 24, 32),
        hidden_dim=(256, 384, 512, 640, 768, 1024),
        head_dim=(32, 64, 128),
        kv_group=(2, 4, 8),
        ffn_multiplier=(2.0, 2.5, 3.0, 4.0),
        normalization=("layernorm", "rmsnorm"),
        activation=("gelu", "geglu", "swiglu", "relu2"),
        position_encoding=POSITION_ENCODINGS,
        tie_embeddings=(False, True),
        quantization=QUANTIZATIONS,
        pruning_ratio=(0.0, 0.2, 0.4),
    ),
}


def space_named(name: str) -> Space:
    """The space of that name.

    Raises:
      ValueError: there is none; the line lists the names.
    """
    if name not in SPACES:
        raise ValueError(f"no space {name!r}: choose {', '.join(SPACES)}")
    return SPACES[name]
