"""Llama, Arcee, Starcoder2, StableLm: rotary decoders that differ in one layer.

Norms are RMSNorm or LayerNorm, feed-forward layers plain or gated. Grouped
heads share keys as ours do: query head n reads key head n // (N / K).
"""

from arch import ArchitectureConfig
from jaxnas.export.native import ANY, Field, NativeClass, Row, row
from jaxnas.export.transforms import BIAS, LINEAR, LINEAR_OUT, ROTARY, ROTARY_BIAS
from jaxnas.storage.jsonl import Json

ATTENTION = ("transformer", "flash_attention", "grouped_query_attention")
# Their gelu is the erf form too.
PLAIN = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "relu2": "relu2",
}
QKV, BIASES = "qkv_bias", "biases"
GATED = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_pytorch_tanh"}


_READ = (
    *("attention_dim", "norm_epsilon", "rope_theta", "rope_scaling"),
    "tanh_gelu",
)


def _takes(
    normalization: str, activations: dict[str, str], **others: tuple
) -> dict[str, tuple]:
    return {
        **dict.fromkeys(_READ, ANY),
        **others,
        "arch_type": ATTENTION,
        "normalization": (normalization,),
        "position_encoding": ("rope",),
        "activation": tuple(one for one in activations if not one.endswith("_tanh")),
    }


def _fields(activations: dict[str, str], epsilon: str) -> tuple[Field, ...]:
    return (
        Field("norm_epsilon", epsilon, real=True),
        Field("rope_theta", "rope_theta", real=True, written=False),
        Field("rope_scaling", "rope_factor", real=True, written=False),
        Field("vocab_size", "vocab_size"),
        Field("hidden_dim", "hidden_size"),
        Field("feedforward_dim", "intermediate_size"),
        Field("num_layers", "num_hidden_layers"),
        Field("num_heads", "num_attention_heads"),
        Field("key_value_heads", "num_key_value_heads"),
        Field("head_dim", "head_dim"),
        Field("max_seq_length", "max_position_embeddings"),
        Field("tie_embeddings", "tie_word_embeddings"),
        Field("activation_form", "hidden_act", activations),
    )


def _rows(**feedforward: str) -> tuple[Row, ...]:
    """The table of weights; the feed-forward layer's modules by our names."""
    layer = "model.layers.{layer}"
    attention = f"{layer}.self_attn"
    mlp = [
        row(f"blocks.feedforward.{ours}.kernel", f"{layer}.mlp.{name}.weight", LINEAR)
        for ours, name in feedforward.items()
    ]
    mlp += [
        row(f"blocks.feedforward.{ours}.bias", f"{layer}.mlp.{name}.bias", when=BIASES)
        for ours, name in feedforward.items()
    ]
    return (
        row("embed.embedding", "model.embed_tokens.weight"),
        row("blocks.mixer_norm.scale", f"{layer}.input_layernorm.weight"),
        row("blocks.mixer.query.kernel", f"{attention}.q_proj.weight", ROTARY),
        row("blocks.mixer.key.kernel", f"{attention}.k_proj.weight", ROTARY),
        row("blocks.mixer.value.kernel", f"{attention}.v_proj.weight", LINEAR),
        row("blocks.mixer.query.bias", f"{attention}.q_proj.bias", ROTARY_BIAS, QKV),
        row("blocks.mixer.key.bias", f"{attention}.k_proj.bias", ROTARY_BIAS, QKV),
        row("blocks.mixer.value.bias", f"{attention}.v_proj.bias", BIAS, QKV),
        row("blocks.mixer.out.kernel", f"{attention}.o_proj.weight", LINEAR_OUT),
        row("blocks.mixer.out.bias", f"{attention}.o_proj.bias", when=BIASES),
        row("blocks.mixer_norm.bias", f"{layer}.input_layernorm.bias", when=BIASES),
        row(
            "blocks.feedforward_norm.bias",
            f"{layer}.post_attention_layernorm.bias",
            when=BIASES,
        ),
        row("norm.bias", "model.norm.bias", when=BIASES),
        row(
            "blocks.feedforward_norm.scale", f"{layer}.post_attention_layernorm.weight"
        ),
        *mlp,
        row("norm.scale", "model.norm.weight"),
        row("head.kernel", "lm_head.weight", LINEAR),
    )


def all_biases(config: ArchitectureConfig) -> dict[str, tuple]:
    """Where others have biases, queries, keys and values have."""
    return {} if config.qkv_bias == config.biases else {QKV: (config.biases,)}


def one_rope(values: Json) -> Json:
    """Rotary settings by one name each: versions of transformers nest some."""
    nested = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(nested, dict):
        return values | {"rope_type": nested}
    kind = {"rope_type": nested["type"]} if "type" in nested else {}
    found = values | kind | nested
    if found.get("rope_type") == "linear":
        return found | {"rope_type": "default", "rope_factor": found.get("factor")}
    return found


def written_rope(config: ArchitectureConfig, **others: float) -> Json:
    """As version 5 of transformers nests them."""
    rope: Json = {"rope_theta": config.rope_theta, "rope_type": "default"} | others
    if config.rope_scaling != 1:
        rope |= {"rope_type": "linear", "factor": config.rope_scaling}
    return rope


def written_scaling(config: ArchitectureConfig) -> Json | None:
    """As version 4 nests them."""
    if config.rope_scaling == 1:
        return None
    return {"type": "linear", "factor": config.rope_scaling}


_NORM_BIASES = (
    "model.layers.{layer}.input_layernorm.bias",
    "model.layers.{layer}.post_attention_layernorm.bias",
    "model.norm.bias",
)
_WHOLE_HEAD = {"partial_rotary_factor": 1.0}
# Version 4 of transformers reads the first line, version 5 the second.
_WRITTEN = {
    "rope_theta": lambda config: config.rope_theta,
    "rope_scaling": written_scaling,
    "rope_parameters": written_rope,
    "attention_dropout": 0.0,
}
_ABSENT = {
    "rope_theta": 10000.0,
    "rope_factor": 1.0,
    "num_key_value_heads": lambda values: values["num_attention_heads"],
    "head_dim": lambda values: values["hidden_size"] // values["num_attention_heads"],
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
_REQUIRED = {"rope_type": "default"} | _WHOLE_HEAD
_BUFFERS = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)

LLAMA = NativeClass(
    name="Llama",
    model_type="llama",
    architecture="LlamaForCausalLM",
    takes=_takes("rmsnorm", GATED),
    fields=_fields(GATED, "rms_norm_eps"),
    written=_WRITTEN | {"attention_bias": False, "mlp_bias": False},
    absent=_ABSENT | {"rms_norm_eps": 1e-6},
    rows=_rows(gate="gate_proj", up="up_proj", down="down_proj"),
    required=_REQUIRED,
    normalise=one_rope,
    buffers=_BUFFERS,
)

QWEN2 = NativeClass(
    name="Qwen2",
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    takes=_takes("rmsnorm", GATED, qkv_bias=(True,)),
    fields=_fields(GATED, "rms_norm_eps"),
    constants={"use_sliding_window": False},
    written=_WRITTEN,
    absent=_ABSENT | {"rms_norm_eps": 1e-6, "num_key_value_heads": 32},
    rows=_rows(gate="gate_proj", up="up_proj", down="down_proj"),
    required=_REQUIRED,
    normalise=one_rope,
    buffers=_BUFFERS,
)

ARCEE = NativeClass(
    name="Arcee",
    model_type="arcee",
    architecture="ArceeForCausalLM",
    takes=_takes("rmsnorm", PLAIN),
    fields=_fields(PLAIN, "rms_norm_eps"),
    written=_WRITTEN | {"attention_bias": False, "mlp_bias": False},
    absent=_ABSENT | {"rms_norm_eps": 1e-5, "hidden_act": "relu2"},
    rows=_rows(up="up_proj", down="down_proj"),
    required=_REQUIRED,
    normalise=one_rope,
    buffers=_BUFFERS,
)

STARCODER2 = NativeClass(
    name="Starcoder2",
    model_type="starcoder2",
    architecture="Starcoder2ForCausalLM",
    takes=_takes("layernorm", PLAIN, qkv_bias=ANY, biases=ANY, sliding_window=ANY),
    sizes=all_biases,
    fields=(
        *_fields(PLAIN, "norm_epsilon"),
        Field(QKV, "use_bias"),
        Field(BIASES, "use_bias"),
        Field("sliding_window", "sliding_window", optional=True),
    ),
    written=_WRITTEN | {"residual_dropout": 0.0, "embedding_dropout": 0.0},
    absent=_ABSENT
    | {
        "norm_epsilon": 1e-5,
        "use_bias": True,
        "sliding_window": None,
        "num_key_value_heads": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    rows=_rows(up="c_fc", down="c_proj"),
    zeros=_NORM_BIASES,
    required=_REQUIRED,
    normalise=one_rope,
    buffers=_BUFFERS,
)

STABLE_LM = NativeClass(
    name="StableLm",
    model_type="stablelm",
    architecture="StableLmForCausalLM",
    takes=_takes("layernorm", GATED, attention_dim=(None,)),
    fields=_fields(GATED, "layer_norm_eps"),
    constants={
        "qk_layernorm": False,
        "use_parallel_residual": False,
    },
    written=_WRITTEN
    | {"use_qkv_bias": False, "hidden_dropout": 0.0}
    | {
        "rope_parameters": lambda config: written_rope(config, **_WHOLE_HEAD),
        **_WHOLE_HEAD,
    },
    absent=_ABSENT
    | {
        "layer_norm_eps": 1e-5,
        "num_key_value_heads": 32,
        "partial_rotary_factor": 0.25,
    },
    rows=_rows(gate="gate_proj", up="up_proj", down="down_proj"),
    zeros=_NORM_BIASES,
    required=_REQUIRED,
    normalise=one_rope,
    buffers=_BUFFERS,
)
