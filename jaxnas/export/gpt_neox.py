"""GPTNeoX (Pythia) and CodeGen: attention and feed-forward layer side by side.

A part of each head is rotated; both branches read the block's input, by a norm each
or by the same one.
"""

from arch import ArchitectureConfig
from jaxnas.export.decoders import (
    ATTENTION,
    PLAIN,
    QKV,
    one_rope,
    written_rope,
    written_scaling,
)
from jaxnas.export.gpt import (
    GPT2_ABSENT,
    GPT2_FIELDS,
    NO_DROPOUT,
    one_tanh,
    shared_keys,
)
from jaxnas.export.native import ANY, Field, NativeClass, row
from jaxnas.export.transforms import (
    IN_PARTS,
    LINEAR,
    LINEAR_OUT,
    SAME,
    heads_apart,
)
from jaxnas.storage.jsonl import Json

_READ = ("query", "key", "value")
_KERNELS = tuple(f"blocks.mixer.{one}.kernel" for one in _READ)
_BIASES = tuple(f"blocks.mixer.{one}.bias" for one in _READ)
_TAKES: dict[str, tuple] = {
    "arch_type": ATTENTION,
    "normalization": ("layernorm",),
    "position_encoding": ("rope",),
    "activation": ("gelu", "silu", "relu2"),
    "biases": (True,),
    **dict.fromkeys(("norm_epsilon", "tanh_gelu", "rotary_dim"), ANY),
}


def _share(config: ArchitectureConfig) -> float:
    """What of a head is rotated: rounded down, it is our number of channels."""
    turned, size = config.rotary_channels, config.head_dim
    exact = turned / size
    return exact if int(size * exact) == turned else (turned + 0.5) / size


def _one_share(values: Json) -> Json:
    """Rotation by the names that others have, the rotated share as channels."""
    named = {
        theirs: values[ours]
        for ours, theirs in (
            ("rotary_emb_base", "rope_theta"),
            ("rotary_pct", "partial_rotary_factor"),
        )
        if values.get(ours) is not None
    }
    found = one_rope(named | values)
    share = found.get("partial_rotary_factor", 0.25)
    try:
        size = found["hidden_size"] // found["num_attention_heads"]
        return found | {"rotary_channels": int(size * share)}
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return found  # what is wrong with these is said of each


_LAYER = "gpt_neox.layers.{layer}"
GPT_NEOX = NativeClass(
    name="GPTNeoX",
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    takes=_TAKES
    | dict.fromkeys((QKV, "rope_theta", "rope_scaling", "parallel_residual"), ANY),
    sizes=shared_keys,
    fields=(
        Field("norm_epsilon", "layer_norm_eps", real=True),
        Field("rope_theta", "rope_theta", real=True, written=False),
        Field("rope_scaling", "rope_factor", real=True, written=False),
        Field("rotary_channels", "rotary_channels", written=False),
        Field("vocab_size", "vocab_size"),
        Field("hidden_dim", "hidden_size"),
        Field("feedforward_dim", "intermediate_size"),
        Field("num_layers", "num_hidden_layers"),
        Field("num_heads", "num_attention_heads"),
        Field("max_seq_length", "max_position_embeddings"),
        Field("tie_embeddings", "tie_word_embeddings"),
        Field("parallel_residual", "use_parallel_residual"),
        Field(QKV, "attention_bias"),
        Field("activation_form", "hidden_act", PLAIN),
    ),
    required={"rope_type": "default"},
    # Version 4 of transformers reads the first three, version 5 the fourth.
    written={
        "rotary_emb_base": lambda config: config.rope_theta,
        "rotary_pct": _share,
        "rope_scaling": written_scaling,
        "rope_parameters": lambda config: written_rope(
            config, partial_rotary_factor=_share(config)
        ),
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    },
    absent={
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_factor": 1.0,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "attention_bias": True,
        "hidden_act": "gelu",
    },
    rows=(
        row("embed.embedding", "gpt_neox.embed_in.weight"),
        row("blocks.mixer_norm.scale", f"{_LAYER}.input_layernorm.weight"),
        row("blocks.mixer_norm.bias", f"{_LAYER}.input_layernorm.bias"),
        row(_KERNELS, f"{_LAYER}.attention.query_key_value.weight")._replace(
            turned=lambda config: heads_apart(config.rotary_channels)
        ),
        row(_BIASES, f"{_LAYER}.attention.query_key_value.bias", SAME, QKV)._replace(
            turned=lambda config: heads_apart(config.rotary_channels)
        ),
        row("blocks.mixer.out.kernel", f"{_LAYER}.attention.dense.weight", LINEAR_OUT),
        row("blocks.mixer.out.bias", f"{_LAYER}.attention.dense.bias", SAME, QKV),
        row(
            "blocks.feedforward_norm.scale", f"{_LAYER}.post_attention_layernorm.weight"
        ),
        row("blocks.feedforward_norm.bias", f"{_LAYER}.post_attention_layernorm.bias"),
        row(
            "blocks.feedforward.up.kernel", f"{_LAYER}.mlp.dense_h_to_4h.weight", LINEAR
        ),
        row("blocks.feedforward.up.bias", f"{_LAYER}.mlp.dense_h_to_4h.bias"),
        row(
            "blocks.feedforward.down.kernel",
            f"{_LAYER}.mlp.dense_4h_to_h.weight",
            LINEAR,
        ),
        row("blocks.feedforward.down.bias", f"{_LAYER}.mlp.dense_4h_to_h.bias"),
        row("norm.scale", "gpt_neox.final_layer_norm.weight"),
        row("norm.bias", "gpt_neox.final_layer_norm.bias"),
        row("head.kernel", "embed_out.weight", LINEAR),
    ),
    normalise=_one_share,
    buffers=(
        r"gpt_neox\.layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",
    ),
)


def _in_parts(config: ArchitectureConfig) -> dict[str, tuple]:
    """Its heads lie in four parts, each query with keys of its own."""
    if config.num_heads % 4:
        return shared_keys(config) | {"num_heads": (4, 8, 16)}
    return shared_keys(config)


def _named(values: Json) -> Json:
    """What null means to it is rotation by the width's frequencies: not ours."""
    found = one_tanh(values)
    null = "rotary_dim" in values and values["rotary_dim"] is None
    return found | ({"rotary_dim": "null"} if null else {})


_BLOCK = "transformer.h.{layer}"
CODEGEN = NativeClass(
    name="CodeGen",
    model_type="codegen",
    architecture="CodeGenForCausalLM",
    takes=_TAKES
    | dict.fromkeys(("parallel_residual", "shared_norm", "head_bias"), (True,))
    | {"tie_embeddings": (False,)},
    sizes=_in_parts,
    fields=(*GPT2_FIELDS, Field("rotary_channels", "rotary_dim")),
    written={"n_ctx": lambda config: config.max_seq_length, **NO_DROPOUT},
    absent=GPT2_ABSENT
    | {"rotary_dim": 64, "n_positions": 2048, "tie_word_embeddings": False},
    rows=(
        row("embed.embedding", "transformer.wte.weight"),
        row("blocks.mixer_norm.scale", f"{_BLOCK}.ln_1.weight"),
        row("blocks.mixer_norm.bias", f"{_BLOCK}.ln_1.bias"),
        row(_KERNELS, f"{_BLOCK}.attn.qkv_proj.weight", IN_PARTS),
        row("blocks.mixer.out.kernel", f"{_BLOCK}.attn.out_proj.weight", LINEAR_OUT),
        row("blocks.feedforward.up.kernel", f"{_BLOCK}.mlp.fc_in.weight", LINEAR),
        row("blocks.feedforward.up.bias", f"{_BLOCK}.mlp.fc_in.bias"),
        row("blocks.feedforward.down.kernel", f"{_BLOCK}.mlp.fc_out.weight", LINEAR),
        row("blocks.feedforward.down.bias", f"{_BLOCK}.mlp.fc_out.bias"),
        row("norm.scale", "transformer.ln_f.weight"),
        row("norm.bias", "transformer.ln_f.bias"),
        row("head.kernel", "lm_head.weight", LINEAR),
        row("head.bias", "lm_head.bias"),
    ),
    normalise=_named,
    buffers=(r"transformer\.h\.\d+\.attn\.causal_mask",),
)
