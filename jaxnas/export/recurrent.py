"""Mamba and Rwkv: decoders whose state does not grow."""

from arch import ArchitectureConfig
from arch.config import MAMBA_EXPAND, MAMBA_STATE, MAMBA_TAPS
from arch.layers.norms import EPSILON
from jaxnas.export.native import Field, NativeClass, row
from jaxnas.export.transforms import LINEAR, ROW, STEPS_FIRST, TAPS


def _expand(config: ArchitectureConfig) -> int:
    """A whole number, as transformers 5 wants; intermediate_size is what counts."""
    return max(1, config.inner_channels // config.hidden_dim)


_MAMBA = "backbone.layers.{layer}.mixer"
MAMBA = NativeClass(
    name="Mamba",
    model_type="mamba",
    architecture="MambaForCausalLM",
    takes={"arch_type": ("mamba",), "normalization": ("rmsnorm",)},
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("hidden_dim", "hidden_size"),
        Field("num_layers", "num_hidden_layers"),
        Field("inner_channels", "intermediate_size"),
        Field("step_rank", "time_step_rank"),
        Field("max_seq_length", "max_position_embeddings"),  # for other readers
        Field("tie_embeddings", "tie_word_embeddings"),
    ),
    constants={
        "layer_norm_epsilon": EPSILON,
        "state_size": MAMBA_STATE,
        "conv_kernel": MAMBA_TAPS,
        "hidden_act": "silu",
        "use_conv_bias": True,
    },
    written={"expand": _expand, "use_bias": False, "residual_in_fp32": True},
    absent={
        "intermediate_size": lambda values: int(
            values.get("expand", MAMBA_EXPAND) * values["hidden_size"]
        ),
        "time_step_rank": lambda values: -(-values["hidden_size"] // 16),
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    rows=(
        row("embed.embedding", "backbone.embeddings.weight"),
        row("blocks.mixer_norm.scale", "backbone.layers.{layer}.norm.weight"),
        row("blocks.mixer.in_proj.kernel", f"{_MAMBA}.in_proj.weight", LINEAR),
        row("blocks.mixer.conv_kernel", f"{_MAMBA}.conv1d.weight", TAPS),
        row("blocks.mixer.conv_bias", f"{_MAMBA}.conv1d.bias"),
        row("blocks.mixer.x_proj.kernel", f"{_MAMBA}.x_proj.weight", STEPS_FIRST),
        row("blocks.mixer.dt_proj.kernel", f"{_MAMBA}.dt_proj.weight", LINEAR),
        row("blocks.mixer.dt_bias", f"{_MAMBA}.dt_proj.bias"),
        row("blocks.mixer.A_log", f"{_MAMBA}.A_log"),
        row("blocks.mixer.D", f"{_MAMBA}.D"),
        row("blocks.mixer.out_proj.kernel", f"{_MAMBA}.out_proj.weight", LINEAR),
        row("norm.scale", "backbone.norm_f.weight"),
        row("head.kernel", "lm_head.weight", LINEAR),
    ),
)


def _rwkv_sizes(config: ArchitectureConfig) -> dict[str, tuple]:
    """Version 5 of transformers divides by the number of layers less one."""
    return {} if config.num_layers > 1 else {"num_layers": (2,)}


_RWKV = "rwkv.blocks.{layer}"
_TIME, _CHANNEL = f"{_RWKV}.attention", f"{_RWKV}.feed_forward"
RWKV = NativeClass(
    name="Rwkv",
    model_type="rwkv",
    architecture="RwkvForCausalLM",
    takes={"arch_type": ("rwkv",)},
    sizes=_rwkv_sizes,
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("hidden_dim", "hidden_size"),
        Field("hidden_dim", "attention_hidden_size"),
        Field("num_layers", "num_hidden_layers"),
        Field("feedforward_dim", "intermediate_size"),
        Field("max_seq_length", "context_length"),
        Field("tie_embeddings", "tie_word_embeddings"),
    ),
    constants={"layer_norm_epsilon": EPSILON},
    # Above 0 it halves activations and weights alike, which guards float16.
    written={"rescale_every": 0},
    absent={
        "attention_hidden_size": lambda values: values["hidden_size"],
        "intermediate_size": lambda values: 4 * values["hidden_size"],
        "context_length": 1024,
        "tie_word_embeddings": False,
    },
    rows=(
        row("embed.embedding", "rwkv.embeddings.weight"),
        row("embed_norm.scale", "rwkv.blocks.0.pre_ln.weight"),
        row("embed_norm.bias", "rwkv.blocks.0.pre_ln.bias"),
        row("blocks.mixer_norm.scale", f"{_RWKV}.ln1.weight"),
        row("blocks.mixer_norm.bias", f"{_RWKV}.ln1.bias"),
        row("blocks.mixer.mix_key", f"{_TIME}.time_mix_key", ROW),
        row("blocks.mixer.mix_value", f"{_TIME}.time_mix_value", ROW),
        row("blocks.mixer.mix_receptance", f"{_TIME}.time_mix_receptance", ROW),
        row("blocks.mixer.decay", f"{_TIME}.time_decay"),
        row("blocks.mixer.bonus", f"{_TIME}.time_first"),
        row("blocks.mixer.key.kernel", f"{_TIME}.key.weight", LINEAR),
        row("blocks.mixer.value.kernel", f"{_TIME}.value.weight", LINEAR),
        row("blocks.mixer.receptance.kernel", f"{_TIME}.receptance.weight", LINEAR),
        row("blocks.mixer.output.kernel", f"{_TIME}.output.weight", LINEAR),
        row("blocks.feedforward_norm.scale", f"{_RWKV}.ln2.weight"),
        row("blocks.feedforward_norm.bias", f"{_RWKV}.ln2.bias"),
        row("blocks.feedforward.mix_key", f"{_CHANNEL}.time_mix_key", ROW),
        row(
            "blocks.feedforward.mix_receptance", f"{_CHANNEL}.time_mix_receptance", ROW
        ),
        row("blocks.feedforward.up.kernel", f"{_CHANNEL}.key.weight", LINEAR),
        row("blocks.feedforward.down.kernel", f"{_CHANNEL}.value.weight", LINEAR),
        row(
            "blocks.feedforward.receptance.kernel",
            f"{_CHANNEL}.receptance.weight",
            LINEAR,
        ),
        row("norm.scale", "rwkv.ln_out.weight"),
        row("norm.bias", "rwkv.ln_out.bias"),
        row("head.kernel", "head.weight", LINEAR),
    ),
)
