"""GPT2, GPTBigCode, MPT: decoders with positions added, to tokens or to scores."""

from arch import ArchitectureConfig
from arch.layers.norms import EPSILON
from jaxnas.export.decoders import ATTENTION, BIASES, PLAIN, QKV, all_biases
from jaxnas.export.native import ANY, Field, NativeClass, Row, row
from jaxnas.export.transforms import (
    BIAS_FUSED,
    CONV1D,
    CONV1D_FUSED,
    CONV1D_OUT,
    LINEAR,
    LINEAR_FUSED,
    LINEAR_OUT,
    Transform,
)
from jaxnas.storage.jsonl import Json

_READ = ("query", "key", "value")
_QUERY_KEY_VALUE = tuple(f"blocks.mixer.{one}.kernel" for one in _READ)
_FFN = 4.0  # MPT's hidden layer as a multiple of the width


def shared_keys(config: ArchitectureConfig) -> dict[str, tuple]:
    """Each query head must have keys of its own."""
    whole = config.key_value_heads == config.num_heads
    return {} if whole else {"kv_heads": (config.num_heads,)}


def _mpt_sizes(config: ArchitectureConfig) -> dict[str, tuple]:
    misfits = shared_keys(config)
    wanted = int(_FFN * config.hidden_dim)
    if config.feedforward_dim == wanted:
        return misfits
    if config.ffn_dim is not None:
        return misfits | {"ffn_dim": (wanted,)}
    return misfits | {"ffn_multiplier": (_FFN,)}


def _like_gpt2(config: ArchitectureConfig) -> dict[str, tuple]:
    return shared_keys(config) | all_biases(config)


def _one_key_head(config: ArchitectureConfig) -> dict[str, tuple]:
    """All query heads share one head of keys."""
    single = {} if config.key_value_heads == 1 else {"kv_heads": (1,)}
    return single | all_biases(config)


def one_tanh(values: Json) -> Json:
    """Two names of one function, and of heads of keys what one setting says."""
    name = values.get("activation_function")
    new = "gelu_pytorch_tanh" if name == "gelu_new" else name
    return values | {"activation_function": new, "key_heads": 1}


def _gpt2_rows(matrix: Transform, out: Transform, joined: Transform) -> tuple[Row, ...]:
    """The table of weights; the matrices of either class lie in a way of its own."""
    layer = "transformer.h.{layer}"
    attention, mlp = f"{layer}.attn", f"{layer}.mlp"
    kernels = tuple(f"blocks.mixer.{one}.kernel" for one in _READ)
    biases = tuple(f"blocks.mixer.{one}.bias" for one in _READ)
    up, down = "blocks.feedforward.up", "blocks.feedforward.down"
    return (
        row("embed.embedding", "transformer.wte.weight"),
        row("positions.embedding", _POSITIONS, when="learned_positions"),
        row("blocks.mixer_norm.scale", f"{layer}.ln_1.weight"),
        row("blocks.mixer_norm.bias", f"{layer}.ln_1.bias", when=BIASES),
        row(kernels, f"{attention}.c_attn.weight", joined),
        row(biases, f"{attention}.c_attn.bias", BIAS_FUSED, QKV),
        row("blocks.mixer.out.kernel", f"{attention}.c_proj.weight", out),
        row("blocks.mixer.out.bias", f"{attention}.c_proj.bias", when=BIASES),
        row("blocks.feedforward_norm.scale", f"{layer}.ln_2.weight"),
        row("blocks.feedforward_norm.bias", f"{layer}.ln_2.bias", when=BIASES),
        row(f"{up}.kernel", f"{mlp}.c_fc.weight", matrix),
        row(f"{up}.bias", f"{mlp}.c_fc.bias", when=BIASES),
        row(f"{down}.kernel", f"{mlp}.c_proj.weight", matrix),
        row(f"{down}.bias", f"{mlp}.c_proj.bias", when=BIASES),
        row("norm.scale", "transformer.ln_f.weight"),
        row("norm.bias", "transformer.ln_f.bias", when=BIASES),
        row("head.kernel", "lm_head.weight", LINEAR),
    )


_POSITIONS = "transformer.wpe.weight"
_TAKES: dict[str, tuple] = {
    "arch_type": ATTENTION,
    "normalization": ("layernorm",),
    "position_encoding": ("absolute",),
    "activation": ("gelu", "silu", "relu2"),
    **dict.fromkeys(("norm_epsilon", "tanh_gelu", "learned_positions"), ANY),
    **dict.fromkeys((QKV, BIASES), ANY),
}
GPT2_FIELDS = (
    Field("norm_epsilon", "layer_norm_epsilon", real=True),
    Field("vocab_size", "vocab_size"),
    Field("hidden_dim", "n_embd"),
    Field("feedforward_dim", "n_inner"),
    Field("num_layers", "n_layer"),
    Field("num_heads", "n_head"),
    Field("max_seq_length", "n_positions"),
    Field("tie_embeddings", "tie_word_embeddings"),
    Field("activation_form", "activation_function", PLAIN),
)
GPT2_ABSENT: dict = {
    "layer_norm_epsilon": 1e-5,
    "n_inner": lambda values: 4 * values["n_embd"],
    "n_positions": 1024,
    "tie_word_embeddings": True,
    "activation_function": "gelu_pytorch_tanh",
}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_ZEROS = (
    "transformer.h.{layer}.ln_1.bias",
    "transformer.h.{layer}.attn.c_attn.bias",
    "transformer.h.{layer}.attn.c_proj.bias",
    "transformer.h.{layer}.ln_2.bias",
    "transformer.h.{layer}.mlp.c_fc.bias",
    "transformer.h.{layer}.mlp.c_proj.bias",
    "transformer.ln_f.bias",
)
_MASK = (r"transformer\.h\.\d+\.attn\.(masked_)?bias",)  # the causal one

GPT2 = NativeClass(
    name="GPT2",
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    takes=_TAKES,
    sizes=_like_gpt2,
    fields=GPT2_FIELDS,
    constants={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    written=NO_DROPOUT,
    absent=GPT2_ABSENT,
    rows=_gpt2_rows(CONV1D, CONV1D_OUT, CONV1D_FUSED),
    zeros=_ZEROS,
    positions=_POSITIONS,
    guessed=True,
    inputs_first=True,
    normalise=one_tanh,
    buffers=_MASK,
)

# Multi-query attention (arXiv:1911.02150), as in SantaCoder and TinyStarCoder.
GPT_BIGCODE = NativeClass(
    name="GPTBigCode",
    model_type="gpt_bigcode",
    architecture="GPTBigCodeForCausalLM",
    takes=_TAKES | {"arch_type": ("grouped_query_attention",)},
    sizes=_one_key_head,
    fields=(*GPT2_FIELDS, Field("key_value_heads", "key_heads", written=False)),
    constants={
        "scale_attn_weights": True,
        "multi_query": True,
        "add_cross_attention": False,
    },
    written=NO_DROPOUT,
    absent=GPT2_ABSENT,
    rows=_gpt2_rows(LINEAR, LINEAR_OUT, LINEAR_FUSED),
    zeros=_ZEROS,
    positions=_POSITIONS,
    guessed=True,
    normalise=one_tanh,
    buffers=_MASK,
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
