"""GPT2 and MPT: decoders with positions that are added, to tokens or to scores."""

from arch import ArchitectureConfig
from arch.layers.norms import EPSILON
from jaxnas.export.decoders import ATTENTION, PLAIN
from jaxnas.export.native import Field, NativeClass, row
from jaxnas.export.transforms import (
    CONV1D,
    CONV1D_FUSED,
    CONV1D_OUT,
    LINEAR,
    LINEAR_FUSED,
    LINEAR_OUT,
)

_QUERY_KEY_VALUE = (
    "blocks.mixer.query.kernel",
    "blocks.mixer.key.kernel",
    "blocks.mixer.value.kernel",
)
_FFN = 4.0  # MPT's hidden layer as a multiple of the width


def _shared_keys(config: ArchitectureConfig) -> dict[str, tuple]:
    """Each query head must have keys of its own."""
    whole = config.key_value_heads == config.num_heads
    return {} if whole else {"kv_heads": (config.num_heads,)}


def _mpt_sizes(config: ArchitectureConfig) -> dict[str, tuple]:
    misfits = _shared_keys(config)
    wanted = int(_FFN * config.hidden_dim)
    if config.feedforward_dim == wanted:
        return misfits
    if config.ffn_dim is not None:
        return misfits | {"ffn_dim": (wanted,)}
    return misfits | {"ffn_multiplier": (_FFN,)}


GPT2 = NativeClass(
    name="GPT2",
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    takes={
        "arch_type": ATTENTION,
        "normalization": ("layernorm",),
        "position_encoding": ("absolute",),
        "activation": tuple(PLAIN),
    },
    sizes=_shared_keys,
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("hidden_dim", "n_embd"),
        Field("feedforward_dim", "n_inner"),
        Field("num_layers", "n_layer"),
        Field("num_heads", "n_head"),
        Field("max_seq_length", "n_positions"),
        Field("tie_embeddings", "tie_word_embeddings"),
        Field("activation", "activation_function", PLAIN),
    ),
    constants={
        "layer_norm_epsilon": EPSILON,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    written={"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    absent={
        "n_inner": lambda values: 4 * values["n_embd"],
        "n_positions": 1024,
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
    },
    rows=(
        row("embed.embedding", "transformer.wte.weight"),
        row("blocks.mixer_norm.scale", "transformer.h.{layer}.ln_1.weight"),
        row(_QUERY_KEY_VALUE, "transformer.h.{layer}.attn.c_attn.weight", CONV1D_FUSED),
        row(
            "blocks.mixer.out.kernel",
            "transformer.h.{layer}.attn.c_proj.weight",
            CONV1D_OUT,
        ),
        row("blocks.feedforward_norm.scale", "transformer.h.{layer}.ln_2.weight"),
        row(
            "blocks.feedforward.up.kernel",
            "transformer.h.{layer}.mlp.c_fc.weight",
            CONV1D,
        ),
        row(
            "blocks.feedforward.down.kernel",
            "transformer.h.{layer}.mlp.c_proj.weight",
            CONV1D,
        ),
        row("norm.scale", "transformer.ln_f.weight"),
        row("head.kernel", "lm_head.weight", LINEAR),
    ),
    zeros=(
        "transformer.h.{layer}.ln_1.bias",
        "transformer.h.{layer}.attn.c_attn.bias",
        "transformer.h.{layer}.attn.c_proj.bias",
        "transformer.h.{layer}.ln_2.bias",
        "transformer.h.{layer}.mlp.c_fc.bias",
        "transformer.h.{layer}.mlp.c_proj.bias",
        "transformer.ln_f.bias",
    ),
    positions="transformer.wpe.weight",
    buffers=(r"transformer\.h\.\d+\.attn\.(masked_)?bias",),  # the causal mask
)

MPT = NativeClass(
    name="MPT",
    model_type="mpt",
    architecture="MptForCausalLM",
    takes={
        "arch_type": ATTENTION,
        "normalization": ("layernorm",),
        "position_encoding": ("alibi",),
        "activation": ("gelu",),
    },
    sizes=_mpt_sizes,
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("hidden_dim", "d_model"),
        Field("num_layers", "n_layers"),
        Field("num_heads", "n_heads"),
        Field("max_seq_length", "max_seq_len"),
        Field("tie_embeddings", "tie_word_embeddings"),
    ),
    constants={
        "layer_norm_epsilon": EPSILON,
        "expansion_ratio": 4,
        "logit_scale": None,
        "attn_config.attn_type": "multihead_attention",
        "attn_config.alibi": True,
        "attn_config.alibi_bias_max": 8,
        "attn_config.clip_qkv": None,
        "attn_config.softmax_scale": None,
        "attn_config.qk_ln": False,
        "attn_config.prefix_lm": False,
    },
    written={
        "resid_pdrop": 0.0,
        "emb_pdrop": 0.0,
        "attn_config.attn_pdrop": 0,
        "no_bias": True,
        "learned_pos_emb": False,
        "use_cache": True,
    },
    absent={"max_seq_len": 2048, "tie_word_embeddings": True},
    rows=(
        row("embed.embedding", "transformer.wte.weight"),
        row("blocks.mixer_norm.scale", "transformer.blocks.{layer}.norm_1.weight"),
        row(
            _QUERY_KEY_VALUE,
            "transformer.blocks.{layer}.attn.Wqkv.weight",
            LINEAR_FUSED,
        ),
        row(
            "blocks.mixer.out.kernel",
            "transformer.blocks.{layer}.attn.out_proj.weight",
            LINEAR_OUT,
        ),
        row(
            "blocks.feedforward_norm.scale", "transformer.blocks.{layer}.norm_2.weight"
        ),
        row(
            "blocks.feedforward.up.kernel",
            "transformer.blocks.{layer}.ffn.up_proj.weight",
            LINEAR,
        ),
        row(
            "blocks.feedforward.down.kernel",
            "transformer.blocks.{layer}.ffn.down_proj.weight",
            LINEAR,
        ),
        row("norm.scale", "transformer.norm_f.weight"),
        row("head.kernel", "lm_head.weight", LINEAR),
    ),
)
