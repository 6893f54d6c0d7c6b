"""Models for the tests of GGUF files: each of llama.cpp's architectures."""

from dataclasses import replace

from export_cells import ATTENTION_CELLS, TOKENS, cell, perturbed, tied

from jaxnas.export.model_folder import save_model

# (norm, position, activation) -> architecture, for attention.
ARCHITECTURES = {
    ("rmsnorm", "rope", "swiglu"): "llama",
    ("rmsnorm", "rope", "geglu"): "gemma",  # with one matrix for both embeddings
    ("rmsnorm", "rope", "relu2"): "arcee",
    ("layernorm", "rope", "gelu"): "starcoder2",
    ("layernorm", "rope", "swiglu"): "stablelm",
    ("layernorm", "rope", "relu2"): "nemotron",
    ("rmsnorm", "alibi", "swiglu"): "refact",
    ("layernorm", "absolute", "gelu"): "gpt2",
    ("layernorm", "alibi", "gelu"): "mpt",
}
GELU = ("gemma", "starcoder2", "gpt2", "mpt")
# What transformers computes and llama.cpp would compute wrongly, without a word.
FALSE_FRIENDS = {
    genes: words
    for genes, words in {
        ("rmsnorm", "rope", "silu"): "activation='silu'",
        ("rmsnorm", "rope", "gelu"): "activation='gelu'",
        ("layernorm", "rope", "silu"): "activation='silu'",
        ("layernorm", "rope", "geglu"): "activation='geglu'",
        ("layernorm", "absolute", "silu"): "activation='silu'",
        ("layernorm", "absolute", "relu2"): "activation='relu2'",
        ("rmsnorm", "rope", "geglu"): "tie_embeddings=False",
    }.items()
    if genes in ATTENTION_CELLS
}


def expected_architecture(config):
    """What the table says: the architecture's name, None if there is none."""
    if config.arch_type == "mamba":
        whole = config.inner_channels == 2 * config.hidden_dim
        return "mamba" if whole and config.normalization == "rmsnorm" else None
    if config.arch_type in ("rwkv", "linear_transformer"):
        return None
    genes = (config.normalization, config.position_encoding, config.activation)
    found = ARCHITECTURES.get(genes)
    return None if found == "gemma" and not config.tie_embeddings else found


def models(**sizes):
    """A model for each architecture, and what else is laid out in its own way."""
    found = {}
    for genes, name in ARCHITECTURES.items():
        config = cell("transformer", *genes, **sizes)
        if name != "gemma":
            found[name] = config
        if name not in ("gpt2", "mpt"):  # transformers has no groups there
            config = cell("grouped_query_attention", *genes, kv_heads=2, **sizes)
        found[f"{name}-tied"] = tied(config)
    # As pruning leaves it: fewer heads than would fill the residual stream.
    narrow = sizes.get("hidden_dim", 32) // 2
    found["llama-narrow"] = cell(
        "transformer", num_heads=2, attention_dim=narrow, **sizes
    )
    mamba = cell("mamba", **sizes)
    return found | {"mamba": mamba, "mamba-tied": tied(mamba)}


def saved(config, folder, exact=True):
    """The folder of a model whose values are none that are drawn at first."""
    save_model(folder, config, perturbed(config), TOKENS, exact=exact)
    return folder


def published(**sizes):
    """What imported models have otherwise than ours, in each architecture that has."""
    rope = {"rope_theta": 1e6, "rope_scaling": 4.0, "norm_epsilon": 1e-6}
    both = {"qkv_bias": True, "biases": True, "tanh_gelu": True}
    grouped = {"arch_type": "grouped_query_attention", "kv_heads": 2}
    gelu = {"normalization": "layernorm", "activation": "gelu"} | both
    absolute = {"position_encoding": "absolute", "learned_positions": True}

    plain = cell("transformer", **sizes)
    return {
        "llama-scaled": replace(plain, **rope, **grouped),
        "llama-narrow-biases": replace(
            plain, num_heads=2, attention_dim=16, qkv_bias=True
        ),
        "qwen2": replace(plain, **rope, **grouped, qkv_bias=True),
        "qwen2-tied": tied(replace(plain, qkv_bias=True)),
        "gemma-tanh-tied": tied(replace(plain, activation="geglu", tanh_gelu=True)),
        "starcoder2-biases": tied(
            replace(plain, **gelu, **grouped, **rope, sliding_window=4096)
        ),
        "nemotron-biases": replace(
            plain, **gelu | {"activation": "relu2", "tanh_gelu": False}
        ),
        "gptneox": replace(plain, **gelu, **rope, rotary_dim=4, parallel_residual=True),
        "gptneox-in-turn": replace(plain, **gelu | {"qkv_bias": False}, rotary_dim=2),
        "phi2": replace(
            plain,
            **gelu | {"qkv_bias": False},
            rotary_dim=4,
            parallel_residual=True,
            shared_norm=True,
            head_bias=True,
        ),
        "gpt2-learned": tied(replace(plain, **gelu, **absolute)),
        "gpt2-multi-query": replace(
            plain, **gelu, **absolute, **grouped | {"kv_heads": 1}
        ),
    }
