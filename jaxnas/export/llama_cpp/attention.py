"""Softmax attention in llama.cpp: twelve architectures.

Its GELU is the tanh form, whatever a model was trained with.
"""

import math
from collections.abc import Callable

import numpy as np

from arch import ArchitectureConfig
from jaxnas.export.decoders import ATTENTION, BIASES, QKV, all_biases
from jaxnas.export.gpt import shared_keys
from jaxnas.export.llama_cpp.architecture import (
    EMBED,
    HEAD,
    LAST_NORM,
    RMS_EPSILON,
    Architecture,
    FileRow,
    Keys,
    row,
    sizes_of_all,
)
from jaxnas.export.native import ANY
from jaxnas.export.rows import halves

_MAX_ALIBI_BIAS = 8.0  # slopes are powers of 2^(-8/n), as in `alibi_slopes`


def _takes(
    normalization: str, position: str, activation: str, **others: tuple
) -> dict[str, tuple]:
    rotary = ("rope_theta", "rope_scaling") if position == "rope" else ()
    read = ("norm_epsilon", "tanh_gelu", "sliding_window", *rotary)
    return {
        "arch_type": ATTENTION,
        "normalization": (normalization,),
        "position_encoding": (position,),
        "activation": (activation,),
        **dict.fromkeys(read, ANY),
        **others,
    }


_NORMS = (
    row("blocks.mixer_norm.scale", "blk.{layer}.attn_norm.weight"),
    row("blocks.feedforward_norm.scale", "blk.{layer}.ffn_norm.weight"),
)
_VALUE = row("blocks.mixer.value.kernel", "blk.{layer}.attn_v.weight")
_OUT = row("blocks.mixer.out.kernel", "blk.{layer}.attn_output.weight")
_UP = row("blocks.feedforward.up.kernel", "blk.{layer}.ffn_up.weight")
_DOWN = row("blocks.feedforward.down.kernel", "blk.{layer}.ffn_down.weight")
_GATE = row("blocks.feedforward.gate.kernel", "blk.{layer}.ffn_gate.weight")
# Rotation of channels 2i and 2i+1, as ours.
_PAIRS = (
    row("blocks.mixer.query.kernel", "blk.{layer}.attn_q.weight"),
    row("blocks.mixer.key.kernel", "blk.{layer}.attn_k.weight"),
)


def _halves(heads: str) -> Callable[[ArchitectureConfig], np.ndarray]:
    return lambda config: halves(
        getattr(config, heads), config.head_dim, config.rotary_channels
    )


# Rotation of channels i and i + H/2.
_HALVES = (
    _PAIRS[0]._replace(order=_halves("num_heads")),
    _PAIRS[1]._replace(order=_halves("key_value_heads")),
)
_FUSED = FileRow(
    (
        "blocks.mixer.query.kernel",
        "blocks.mixer.key.kernel",
        "blocks.mixer.value.kernel",
    ),
    "blk.{layer}.attn_qkv.weight",
)
# Biases, in the same orders.
_PAIR_BIASES = (
    row("blocks.mixer.query.bias", "blk.{layer}.attn_q.bias", QKV),
    row("blocks.mixer.key.bias", "blk.{layer}.attn_k.bias", QKV),
)
_HALF_BIASES = tuple(
    bias._replace(order=kernel.order)
    for bias, kernel in zip(_PAIR_BIASES, _HALVES, strict=True)
)
_VALUE_BIAS = row("blocks.mixer.value.bias", "blk.{layer}.attn_v.bias", QKV)
_FUSED_BIAS = FileRow(
    tuple(name.replace("kernel", "bias") for name in _FUSED.ours),
    "blk.{layer}.attn_qkv.bias",
    when=QKV,
)
_OTHER_BIASES = (
    row("blocks.mixer_norm.bias", "blk.{layer}.attn_norm.bias", BIASES),
    row("blocks.feedforward_norm.bias", "blk.{layer}.ffn_norm.bias", BIASES),
    row("norm.bias", "output_norm.bias", BIASES),
    row("blocks.mixer.out.bias", "blk.{layer}.attn_output.bias", "out_bias"),
    row("blocks.feedforward.up.bias", "blk.{layer}.ffn_up.bias", BIASES),
    row("blocks.feedforward.down.bias", "blk.{layer}.ffn_down.bias", BIASES),
)


def _fused_halves(config: ArchitectureConfig) -> np.ndarray:
    """Queries and keys in halves, values as they are, each with a head of its own."""
    order = halves(2 * config.num_heads, config.head_dim, config.rotary_channels)
    return np.concatenate([order, len(order) + np.arange(len(order) // 2)])


_PLAIN, _GATED = (_UP, _DOWN), (_GATE, _UP, _DOWN)
_NORM_BIASES = (
    "blk.{layer}.attn_norm.bias",
    "blk.{layer}.ffn_norm.bias",
    "output_norm.bias",
)
_DENSE_BIASES = (
    "blk.{layer}.attn_output.bias",
    "blk.{layer}.ffn_up.bias",
    "blk.{layer}.ffn_down.bias",
)


def _rows(*rows: FileRow) -> tuple[FileRow, ...]:
    return (EMBED, *_NORMS, *rows, LAST_NORM, HEAD)


def _attention(config: ArchitectureConfig) -> Keys:
    return sizes_of_all(config) | {
        "feed_forward_length": config.feedforward_dim,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.key_value_heads,
    }


_LAYER_NORM = "attention.layer_norm_epsilon"


def _rotary(
    epsilon: str, **others: int | float | bool
) -> Callable[[ArchitectureConfig], Keys]:
    """Sizes, the norms' epsilon and rotation, with others by their names."""

    def keys(config: ArchitectureConfig) -> Keys:
        rope: Keys = {
            "rope.dimension_count": config.rotary_channels,
            "rope.freq_base": config.rope_theta,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
        }
        if config.rope_scaling != 1:
            rope |= {
                "rope.scaling.type": "linear",
                "rope.scaling.factor": config.rope_scaling,
            }
        return _attention(config) | rope | {epsilon: config.norm_epsilon} | others

    return keys


def _fixed(
    epsilon: str, **others: int | float | bool
) -> Callable[[ArchitectureConfig], Keys]:
    """Sizes of attention and the norms' epsilon, with others by their names."""
    return lambda config: _attention(config) | {epsilon: config.norm_epsilon} | others


def _whole_window(config: ArchitectureConfig) -> dict[str, tuple]:
    """No window, or one that no text is longer than: llama.cpp has none here."""
    window = config.sliding_window
    whole = window is None or window >= config.max_seq_length
    return {} if whole else {"sliding_window": (None,)}


def _own_keys(config: ArchitectureConfig) -> dict[str, tuple]:
    return _whole_window(config) | shared_keys(config)


def _like_gpt2(config: ArchitectureConfig) -> dict[str, tuple]:
    return _whole_window(config) | all_biases(config)


def _root(config: ArchitectureConfig) -> float:
    return math.sqrt(config.hidden_dim)


QWEN2 = Architecture(
    name="qwen2",
    takes=_takes("rmsnorm", "rope", "swiglu", qkv_bias=(True,)),
    sizes=_whole_window,
    keys=_rotary(RMS_EPSILON),
    rows=_rows(*_HALVES, _VALUE, *_HALF_BIASES, _VALUE_BIAS, _OUT, *_GATED),
)

LLAMA = Architecture(
    name="llama",
    takes=_takes("rmsnorm", "rope", "swiglu", attention_dim=ANY, qkv_bias=ANY),
    sizes=_whole_window,
    keys=_rotary(RMS_EPSILON),
    rows=_rows(*_PAIRS, _VALUE, *_PAIR_BIASES, _VALUE_BIAS, _OUT, *_GATED),
)

GEMMA = Architecture(
    name="gemma",
    takes=_takes("rmsnorm", "rope", "geglu", tie_embeddings=(True,), attention_dim=ANY),
    sizes=_whole_window,
    keys=_rotary(RMS_EPSILON),
    # It multiplies the embedding by sqrt(D) where it enters, and not as the head.
    rows=(
        EMBED._replace(factor=lambda config: 1 / _root(config)),
        *_NORMS,
        *_HALVES,
        _VALUE,
        _OUT,
        *_GATED,
        LAST_NORM._replace(factor=_root),
        HEAD,
    ),
)

ARCEE = Architecture(
    name="arcee",
    takes=_takes("rmsnorm", "rope", "relu2", attention_dim=ANY),
    sizes=_whole_window,
    keys=_rotary(RMS_EPSILON),
    rows=_rows(*_PAIRS, _VALUE, _OUT, *_PLAIN),
)

STARCODER2 = Architecture(
    name="starcoder2",
    takes=_takes("layernorm", "rope", "gelu", qkv_bias=ANY, biases=ANY),
    sizes=_like_gpt2,
    keys=_rotary(_LAYER_NORM),
    rows=_rows(*_HALVES, _VALUE, _OUT, *_PLAIN, *_HALF_BIASES, _VALUE_BIAS)
    + _OTHER_BIASES,
    zeros=(*_NORM_BIASES, *_DENSE_BIASES),
)

STABLE_LM = Architecture(
    name="stablelm",
    takes=_takes("layernorm", "rope", "swiglu"),
    sizes=_whole_window,
    keys=_rotary(_LAYER_NORM, use_parallel_residual=False),
    rows=_rows(*_HALVES, _VALUE, _OUT, *_GATED),
    zeros=_NORM_BIASES,
    untied=True,
)

NEMOTRON = Architecture(
    name="nemotron",
    takes=_takes("layernorm", "rope", "relu2", qkv_bias=ANY, biases=ANY),
    sizes=_like_gpt2,
    keys=_rotary(_LAYER_NORM),
    rows=STARCODER2.rows,
    zeros=_NORM_BIASES,
    untied=True,
)

_PARALLEL = ("rotary_dim", QKV, BIASES)
_FUSED_HALVES = (
    _FUSED._replace(order=_fused_halves),
    _FUSED_BIAS._replace(order=_fused_halves),
)

GPT_NEOX = Architecture(
    name="gptneox",
    takes=_takes(
        "layernorm",
        "rope",
        "gelu",
        parallel_residual=ANY,
        **dict.fromkeys(_PARALLEL, ANY),
    ),
    sizes=_own_keys,
    keys=lambda config: _rotary(
        _LAYER_NORM, use_parallel_residual=config.parallel_residual
    )(config),
    rows=_rows(*_FUSED_HALVES, _OUT, *_PLAIN, *_OTHER_BIASES),
    zeros=(*_NORM_BIASES, *_DENSE_BIASES, "blk.{layer}.attn_qkv.bias"),
    untied=True,
)

# One norm of a layer's input, and a head with a bias.
PHI2 = Architecture(
    name="phi2",
    takes=_takes(
        "layernorm",
        "rope",
        "gelu",
        parallel_residual=(True,),
        shared_norm=(True,),
        head_bias=ANY,
        **dict.fromkeys(_PARALLEL, ANY),
    ),
    sizes=_own_keys,
    keys=_rotary(_LAYER_NORM),
    rows=(
        *(EMBED, _NORMS[0], *_FUSED_HALVES, _OUT, *_PLAIN, LAST_NORM, HEAD),
        *(one for one in _OTHER_BIASES if "feedforward_norm" not in one.ours[0]),
        row("head.bias", "output.bias", "head_bias"),
    ),
    zeros=(
        *(name for name in _NORM_BIASES if "ffn" not in name),
        *(*_DENSE_BIASES, "blk.{layer}.attn_qkv.bias", "output.bias"),
    ),
    untied=True,
)

REFACT = Architecture(
    name="refact",
    takes=_takes("rmsnorm", "alibi", "swiglu"),
    sizes=_whole_window,
    keys=_fixed(RMS_EPSILON),
    rows=_rows(*_PAIRS, _VALUE, _OUT, *_GATED),
)

GPT2 = Architecture(
    name="gpt2",
    takes=_takes(
        "layernorm",
        "absolute",
        "gelu",
        **dict.fromkeys((QKV, BIASES, "learned_positions"), ANY),
    ),
    sizes=_like_gpt2,
    keys=_fixed(_LAYER_NORM),
    rows=_rows(
        row("positions.embedding", "position_embd.weight", "learned_positions"),
        *(_FUSED, _OUT, *_PLAIN, _FUSED_BIAS, *_OTHER_BIASES),
    ),
    zeros=(*_NORM_BIASES, *_DENSE_BIASES, "blk.{layer}.attn_qkv.bias"),
    positions="position_embd.weight",
)

MPT = Architecture(
    name="mpt",
    takes=_takes("layernorm", "alibi", "gelu"),
    sizes=_whole_window,
    keys=_fixed(_LAYER_NORM, **{"attention.max_alibi_bias": _MAX_ALIBI_BIAS}),
    rows=_rows(_FUSED, _OUT, *_PLAIN),
)
