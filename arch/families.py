"""The six families, and which fields of a config each one reads.

A field that a family does not read is canonicalised away: two configs that
differ only there are one model, and a search must not train it twice.
"""

FAMILIES = (
    "transformer",
    "linear_transformer",
    "flash_attention",
    "grouped_query_attention",
    "mamba",
    "rwkv",
)

# Read by every family, whatever its mixer.
COMMON = frozenset(
    {
        "arch_type",
        "num_layers",
        "hidden_dim",
        "residual_dropout",
        "quantization",
        "pruning_ratio",
        "vocab_size",
        "max_seq_length",
        "tie_embeddings",
        "norm_epsilon",
    }
)
# What published or pruned models have otherwise than ours, and ours: a field as
# here is not written down.
VARIANTS: dict[str, float | bool | None] = {
    "attention_dim": None,
    "norm_epsilon": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": 1.0,
    "qkv_bias": False,
    "biases": False,
    "tanh_gelu": False,
    "learned_positions": False,
    "sliding_window": None,
    "rotary_dim": None,
    "parallel_residual": False,
    "shared_norm": False,
    "head_bias": False,
}
_SOFTMAX = frozenset(VARIANTS)
_FFN = frozenset({"ffn_multiplier", "ffn_dim"})
_DENSE = _FFN | {
    "num_heads",
    "attention_dim",
    "normalization",
    "activation",
    "position_encoding",
}

# The common fields and each family's own. Attention dropout needs an
# attention matrix that is there to be dropped from.
USES = {
    "transformer": COMMON | _DENSE | _SOFTMAX | {"attention_dropout"},
    "linear_transformer": COMMON | _DENSE,
    "flash_attention": COMMON | _DENSE | _SOFTMAX - {"sliding_window"},
    "grouped_query_attention": COMMON
    | _DENSE
    | _SOFTMAX
    | {"attention_dropout", "kv_heads"},
    "mamba": COMMON | {"normalization", "inner_dim"},
    "rwkv": COMMON | _FFN,
}

# What a field that its family does not read is set to: valid for every width.
UNUSED = {
    "num_heads": 1,
    "ffn_multiplier": 4.0,
    "ffn_dim": None,
    "normalization": "layernorm",
    "activation": "gelu",
    "position_encoding": "absolute",
    "attention_dropout": 0.0,
    "kv_heads": None,
    "inner_dim": None,
    **VARIANTS,
}


def has_heads(arch_type: str) -> bool:
    """True if the family splits its channels into `num_heads` heads."""
    return "num_heads" in USES[arch_type]


def has_norm_bias(arch_type: str) -> bool:
    """True if the family's norms add a bias, as RWKV's published ones do."""
    return arch_type == "rwkv"


def has_embedding_norm(arch_type: str) -> bool:
    """True if embeddings are normalised before the first block."""
    return arch_type == "rwkv"
