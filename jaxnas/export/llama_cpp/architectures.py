"""Which of llama.cpp's architectures computes a model exactly, as data.

llama.cpp fixes the activation by the architecture's name and reads no setting for
it: a file under the wrong name loads without a word and computes another function.
So what is not in this table is refused. `arcee` is the square of ReLU alone,
`starcoder2` GELU, `llama` and `stablelm` SiLU, `gemma` GELU with one matrix for
both embeddings.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from arch import ArchitectureConfig
from arch.config import MAMBA_EXPAND, MAMBA_STATE, MAMBA_TAPS
from arch.layers.norms import EPSILON
from arch.layers.positions import BASE
from jaxnas.errors import UsageError
from jaxnas.export.choice import refusal
from jaxnas.export.decoders import ATTENTION
from jaxnas.export.native import LAYER, misfits_of, no_misfits

Keys: TypeAlias = dict[str, int | float | bool]

_MAX_ALIBI_BIAS = 8.0  # slopes are powers of 2^(-8/n), as in `alibi_slopes`


class Row(NamedTuple):
    """A line of an architecture's table of tensors."""

    ours: tuple[str, ...]  # paths below "params", dotted; rows of several are joined
    theirs: str  # with {layer}, if ours are stacked
    order: Callable[[ArchitectureConfig], np.ndarray] | None = None
    """Which of our matrix's rows is each of theirs: i32[rows]."""
    factor: Callable[[ArchitectureConfig], float] | None = None
    """Theirs is ours times this."""
    change: Callable[[np.ndarray], np.ndarray] | None = None
    """Ours, which is no matrix, to theirs; of one layer."""

    @property
    def stacked(self) -> bool:
        """True if there is such a tensor for each layer."""
        return LAYER in self.theirs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture of llama.cpp that computes some of our models exactly.

    Attributes:
      name: `general.architecture` in the file.
      takes: field of ours -> the values that it can have.
      sizes: config -> what else does not fit: field -> values that would.
      keys: settings of the file, without the architecture's name before them.
      rows: weights.
      zeros: biases that ours does not have, each beside a ".weight".
      positions: a table of positions that ours computes.
      untied: it reads a head of its own; a tied model writes its matrix twice.
    """

    name: str
    takes: Mapping[str, tuple]
    keys: Callable[[ArchitectureConfig], Keys]
    rows: tuple[Row, ...]
    sizes: Callable[[ArchitectureConfig], dict[str, tuple]] = no_misfits
    zeros: tuple[str, ...] = ()
    positions: str | None = None
    untied: bool = False

    def misfits(self, config: ArchitectureConfig) -> dict[str, tuple]:
        """Fields of a canonical config that it has no value for: -> those it has."""
        return misfits_of(self.takes, config) | self.sizes(config)

    def rows_of(self, config: ArchitectureConfig) -> list[Row]:
        """The table for a config: a tied model's head is its embedding."""
        if not config.tie_embeddings:
            return list(self.rows)
        rows = [row for row in self.rows if row.ours != _HEAD.ours]
        if self.untied:
            rows.append(_HEAD._replace(ours=_EMBED.ours))
        return rows


def architecture_for(config: ArchitectureConfig) -> Architecture:
    """The architecture that computes the config's function.

    Raises:
      UsageError: none does; the line names the fields, and what would do.
    """
    config = config.canonical()
    for architecture in ARCHITECTURES:
        if not architecture.misfits(config):
            return architecture
    raise UsageError(refusal(config, ARCHITECTURES, "llama.cpp architecture"))


def _takes(
    normalization: str, position: str, activation: str, **others: tuple
) -> dict[str, tuple]:
    return {
        "arch_type": ATTENTION,
        "normalization": (normalization,),
        "position_encoding": (position,),
        "activation": (activation,),
        **others,
    }


def _row(ours: str, theirs: str) -> Row:
    return Row((ours,), theirs)


_EMBED = _row("embed.embedding", "token_embd.weight")
_HEAD = _row("head.kernel", "output.weight")
_NORMS = (
    _row("blocks.mixer_norm.scale", "blk.{layer}.attn_norm.weight"),
    _row("blocks.feedforward_norm.scale", "blk.{layer}.ffn_norm.weight"),
)
_LAST_NORM = _row("norm.scale", "output_norm.weight")
_VALUE = _row("blocks.mixer.value.kernel", "blk.{layer}.attn_v.weight")
_OUT = _row("blocks.mixer.out.kernel", "blk.{layer}.attn_output.weight")
_UP = _row("blocks.feedforward.up.kernel", "blk.{layer}.ffn_up.weight")
_DOWN = _row("blocks.feedforward.down.kernel", "blk.{layer}.ffn_down.weight")
_GATE = _row("blocks.feedforward.gate.kernel", "blk.{layer}.ffn_gate.weight")
# Rotation of channels 2i and 2i+1, as ours.
_PAIRS = (
    _row("blocks.mixer.query.kernel", "blk.{layer}.attn_q.weight"),
    _row("blocks.mixer.key.kernel", "blk.{layer}.attn_k.weight"),
)


def _halves(heads: str) -> Callable[[ArchitectureConfig], np.ndarray]:
    """Of each head: the even channels, then the odd ones."""

    def order(config: ArchitectureConfig) -> np.ndarray:
        channels = np.arange(getattr(config, heads) * config.head_dim)
        pairs = channels.reshape(-1, config.head_dim // 2, 2)
        return pairs.swapaxes(1, 2).ravel()

    return order


# Rotation of channels i and i + H/2.
_HALVES = (
    _PAIRS[0]._replace(order=_halves("num_heads")),
    _PAIRS[1]._replace(order=_halves("key_value_heads")),
)
_FUSED = Row(
    (
        "blocks.mixer.query.kernel",
        "blocks.mixer.key.kernel",
        "blocks.mixer.value.kernel",
    ),
    "blk.{layer}.attn_qkv.weight",
)
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


def _rows(*rows: Row) -> tuple[Row, ...]:
    return (_EMBED, *_NORMS, *rows, _LAST_NORM, _HEAD)


def _sizes(config: ArchitectureConfig) -> Keys:
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_seq_length,
        "embedding_length": config.hidden_dim,
        "block_count": config.num_layers,
    }


def _attention(config: ArchitectureConfig) -> Keys:
    return _sizes(config) | {
        "feed_forward_length": config.feedforward_dim,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.key_value_heads,
    }


_RMS_NORM: Keys = {"attention.layer_norm_rms_epsilon": EPSILON}
_LAYER_NORM: Keys = {"attention.layer_norm_epsilon": EPSILON}


def _rotary(**others: int | float | bool) -> Callable[[ArchitectureConfig], Keys]:
    """Sizes and rotation, with others by their names."""

    def keys(config: ArchitectureConfig) -> Keys:
        rope: Keys = {
            "rope.dimension_count": config.head_dim,
            "rope.freq_base": BASE,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
        }
        return _attention(config) | rope | others

    return keys


def _fixed(**others: int | float | bool) -> Callable[[ArchitectureConfig], Keys]:
    """Sizes of attention, with others by their names."""
    return lambda config: _attention(config) | others


def _root(config: ArchitectureConfig) -> float:
    return math.sqrt(config.hidden_dim)


LLAMA = Architecture(
    name="llama",
    takes=_takes("rmsnorm", "rope", "swiglu"),
    keys=_rotary(**_RMS_NORM),
    rows=_rows(*_PAIRS, _VALUE, _OUT, *_GATED),
)

GEMMA = Architecture(
    name="gemma",
    takes=_takes("rmsnorm", "rope", "geglu", tie_embeddings=(True,)),
    keys=_rotary(**_RMS_NORM),
    # It multiplies the embedding by sqrt(D) where it enters, and not as the head.
    rows=(
        _EMBED._replace(factor=lambda config: 1 / _root(config)),
        *_NORMS,
        *_HALVES,
        _VALUE,
        _OUT,
        *_GATED,
        _LAST_NORM._replace(factor=_root),
        _HEAD,
    ),
)

ARCEE = Architecture(
    name="arcee",
    takes=_takes("rmsnorm", "rope", "relu2"),
    keys=_rotary(**_RMS_NORM),
    rows=_rows(*_PAIRS, _VALUE, _OUT, *_PLAIN),
)

STARCODER2 = Architecture(
    name="starcoder2",
    takes=_takes("layernorm", "rope", "gelu"),
    keys=_rotary(**_LAYER_NORM),
    rows=_rows(*_HALVES, _VALUE, _OUT, *_PLAIN),
    zeros=(*_NORM_BIASES, *_DENSE_BIASES),
)

STABLE_LM = Architecture(
    name="stablelm",
    takes=_takes("layernorm", "rope", "swiglu"),
    keys=_rotary(**_LAYER_NORM, use_parallel_residual=False),
    rows=_rows(*_HALVES, _VALUE, _OUT, *_GATED),
    zeros=_NORM_BIASES,
    untied=True,
)

NEMOTRON = Architecture(
    name="nemotron",
    takes=_takes("layernorm", "rope", "relu2"),
    keys=_rotary(**_LAYER_NORM),
    rows=_rows(*_HALVES, _VALUE, _OUT, *_PLAIN),
    zeros=_NORM_BIASES,
    untied=True,
)

REFACT = Architecture(
    name="refact",
    takes=_takes("rmsnorm", "alibi", "swiglu"),
    keys=_fixed(**_RMS_NORM),
    rows=_rows(*_PAIRS, _VALUE, _OUT, *_GATED),
)

GPT2 = Architecture(
    name="gpt2",
    takes=_takes("layernorm", "absolute", "gelu"),
    keys=_fixed(**_LAYER_NORM),
    rows=_rows(_FUSED, _OUT, *_PLAIN),
    zeros=(*_NORM_BIASES, *_DENSE_BIASES, "blk.{layer}.attn_qkv.bias"),
    positions="position_embd.weight",
)

MPT = Architecture(
    name="mpt",
    takes=_takes("layernorm", "alibi", "gelu"),
    keys=_fixed(**_LAYER_NORM, **{"attention.max_alibi_bias": _MAX_ALIBI_BIAS}),
    rows=_rows(_FUSED, _OUT, *_PLAIN),
)


def _mamba_keys(config: ArchitectureConfig) -> Keys:
    return _sizes(config) | {
        "feed_forward_length": 0,
        "attention.head_count": 0,
        **_RMS_NORM,
        "ssm.conv_kernel": MAMBA_TAPS,
        "ssm.inner_size": config.inner_channels,
        "ssm.state_size": MAMBA_STATE,
        "ssm.time_step_rank": config.step_rank,
        "ssm.dt_b_c_rms": False,
    }


def _mamba_sizes(config: ArchitectureConfig) -> dict[str, tuple]:
    """It loads no other count of channels, so no pruned model."""
    wanted = MAMBA_EXPAND * config.hidden_dim
    return {} if config.inner_channels == wanted else {"inner_dim": (wanted,)}


def _steps_first(config: ArchitectureConfig) -> np.ndarray:
    """Rows B, C, step -> step, B, C."""
    return np.roll(np.arange(2 * MAMBA_STATE + config.step_rank), -2 * MAMBA_STATE)


def _mixer(ours: str, theirs: str) -> Row:
    return _row(f"blocks.mixer.{ours}", f"blk.{{layer}}.{theirs}")


MAMBA = Architecture(
    name="mamba",
    takes={"arch_type": ("mamba",), "normalization": ("rmsnorm",)},
    sizes=_mamba_sizes,
    keys=_mamba_keys,
    rows=(
        _EMBED,
        _NORMS[0],
        _mixer("in_proj.kernel", "ssm_in.weight"),
        _mixer("conv_kernel", "ssm_conv1d.weight")._replace(change=np.transpose),
        _mixer("conv_bias", "ssm_conv1d.bias"),
        _mixer("x_proj.kernel", "ssm_x.weight")._replace(order=_steps_first),
        _mixer("dt_proj.kernel", "ssm_dt.weight"),
        _mixer("dt_bias", "ssm_dt.bias"),
        _mixer("A_log", "ssm_a")._replace(change=lambda a_log: -np.exp(a_log)),
        _mixer("D", "ssm_d"),
        _mixer("out_proj.kernel", "ssm_out.weight"),
        _LAST_NORM,
        _HEAD,
    ),
)

ARCHITECTURES = (
    LLAMA,
    GEMMA,
    ARCEE,
    STARCODER2,
    STABLE_LM,
    NEMOTRON,
    REFACT,
    GPT2,
    MPT,
    MAMBA,
)
