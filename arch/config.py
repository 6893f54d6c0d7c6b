"""The architecture config: one flat, frozen, validated value."""

import dataclasses
import json
import math
from typing import Any, NamedTuple

from arch.checks import MOST_COUNT, is_count, is_real
from arch.families import FAMILIES, UNUSED, USES, VARIANTS, has_heads

NORMALIZATIONS = ("layernorm", "rmsnorm", "groupnorm")
ACTIVATIONS = ("gelu", "silu", "geglu", "swiglu", "relu2")
POSITION_ENCODINGS = ("absolute", "rope", "alibi")
QUANTIZATIONS = ("fp16", "int8", "int4")

GATED_ACTIVATIONS = ("geglu", "swiglu")
NORM_GROUPS = 8  # GroupNorm's groups; every residual layout keeps to them

MAMBA_EXPAND = 2  # inner channels as a multiple of hidden_dim
MAMBA_STATE = 16  # state channels of each inner channel
MAMBA_TAPS = 4  # of the depthwise convolution
MAMBA_RANK_DIVISOR = 16  # hidden_dim over the rank of the step size

_CHOICES = {
    "arch_type": FAMILIES,
    "normalization": NORMALIZATIONS,
    "activation": ACTIVATIONS,
    "position_encoding": POSITION_ENCODINGS,
    "quantization": QUANTIZATIONS,
}
_COUNTS = ("num_layers", "hidden_dim", "num_heads", "vocab_size", "max_seq_length")
_SWITCHES = (
    *("tie_embeddings", "qkv_bias", "biases"),
    *("tanh_gelu", "learned_positions"),
    *("parallel_residual", "shared_norm", "head_bias"),
)
_OVERRIDES = (  # null or a count
    *("ffn_dim", "kv_heads", "inner_dim"),
    *("attention_dim", "sliding_window", "rotary_dim"),
)
_COUNT = f"an int of at least 1, at most {MOST_COUNT:,}"
_POSITIVE = ("norm_epsilon", "rope_theta", "rope_scaling")
MOST_REAL = 1e30  # they are computed with in float32
_RATES = ("attention_dropout", "residual_dropout", "pruning_ratio")


class Heads(NamedTuple):
    """How attention splits its channels."""

    query: int
    key_value: int  # each serves as many query heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchitectureConfig:
    """A language model's architecture, its compression included.

    Raises:
      ValueError: a field is out of its range or fields contradict each other;
        one line with the field, the value and what is allowed.
    """

    arch_type: str
    num_layers: int
    hidden_dim: int  # channels of the residual stream
    num_heads: int
    ffn_multiplier: float  # feed-forward channels as a multiple of hidden_dim
    normalization: str
    activation: str  # geglu and swiglu have a third, gating matrix
    position_encoding: str
    attention_dropout: float = 0.0  # in [0, 1), of attention probabilities
    residual_dropout: float = 0.0  # in [0, 1), of each sub-layer's output
    vocab_size: int = 50000
    max_seq_length: int = 2048  # tokens
    quantization: str = "fp16"  # how weights are stored
    pruning_ratio: float = 0.0  # in [0, 1), share of inner channels removed
    tie_embeddings: bool = False  # one matrix for input and output embedding
    ffn_dim: int | None = None  # overrides ffn_multiplier
    kv_heads: int | None = None  # of keys and values; None for half of num_heads
    inner_dim: int | None = None  # Mamba's channels; None for twice hidden_dim
    attention_dim: int | None = None  # of all query heads; None for hidden_dim
    norm_epsilon: float = 1e-5  # added to a norm's mean of squares
    rope_theta: float = 10000.0  # base of rotary frequencies
    rope_scaling: float = 1.0  # positions are divided by it where they rotate
    qkv_bias: bool = False  # queries, keys and values have biases
    biases: bool = False  # and other linear layers but the head, and norms
    tanh_gelu: bool = False  # GELU is its tanh approximation, else exact
    learned_positions: bool = False  # absolute positions are a table, no sinusoids
    sliding_window: int | None = None  # tokens that attention reads; None for all
    rotary_dim: int | None = None  # channels of a head that turn; None for all
    parallel_residual: bool = False  # feed-forward layers read what attention reads
    shared_norm: bool = False  # and the same norm of it
    head_bias: bool = False  # the head adds one

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            _require(getattr(self, name) in allowed, name, self, " | ".join(allowed))
        for name in _COUNTS:
            _require(is_count(getattr(self, name)), name, self, _COUNT)
        for name in _RATES:
            rate = getattr(self, name)
            _require(is_real(rate) and 0 <= rate < 1, name, self, "a number in [0, 1)")
            object.__setattr__(self, name, float(rate))
        for name in _POSITIVE:
            value = getattr(self, name)
            fits = is_real(value) and 0 < value <= MOST_REAL
            needed = f"a number above 0, at most {MOST_REAL:g}"
            _require(fits, name, self, needed)
            object.__setattr__(self, name, float(value))
        for name in _OVERRIDES:
            value = getattr(self, name)
            _require(
                value is None or is_count(value),
                name,
                self,
                f"null or {_COUNT}",
            )
        multiplier = self.ffn_multiplier
        _require(
            is_real(multiplier)
            and 0 < self.hidden_dim * multiplier < math.inf
            and is_count(self.feedforward_dim),
            "ffn_multiplier",
            self,
            f"a number above 0 that leaves 1 to {MOST_COUNT:,} channels",
        )
        object.__setattr__(self, "ffn_multiplier", float(multiplier))
        for name in _SWITCHES:
            _require(isinstance(getattr(self, name), bool), name, self, "true | false")
        self._check_variants()
        self._check_shapes()

    def _check_variants(self) -> None:
        """A variant that the family does not have would be left out without a word."""
        for name, value in VARIANTS.items():
            if name in USES[self.arch_type] or name == "attention_dim":
                continue
            plain = "null" if value is None else json.dumps(value)
            allowed = f"{plain}: {self.arch_type} has nothing else"
            _require(getattr(self, name) == value, name, self, allowed)

    def _check_shapes(self) -> None:
        hidden, heads, uses = self.hidden_dim, self.num_heads, USES[self.arch_type]
        if has_heads(self.arch_type):
            wide = "hidden_dim" if self.attention_dim is None else "attention_dim"
            channels = self.attention_channels
            _require(
                channels % heads == 0,
                "num_heads",
                self,
                f"a divisor of {wide}={channels}",
            )
            if self.position_encoding == "rope":
                _require(
                    (channels // heads) % 2 == 0,
                    "num_heads",
                    self,
                    f"heads of an even size for rope, {wide}={channels}",
                )
                turned = self.rotary_dim
                _require(
                    turned is None or (turned % 2 == 0 and turned <= channels // heads),
                    "rotary_dim",
                    self,
                    f"null or an even number, at most a head's {channels // heads}",
                )
        if "kv_heads" in uses:
            _require(
                heads % (self.kv_heads or 2) == 0,
                "num_heads" if self.kv_heads is None else "kv_heads",
                self,
                "an even number, or kv_heads"
                if self.kv_heads is None
                else f"a divisor of num_heads={heads}",
            )
        _require(
            self.parallel_residual or not self.shared_norm,
            "shared_norm",
            self,
            "false where parallel_residual is",
        )
        _require(
            not (self.head_bias and self.tie_embeddings),
            "head_bias",
            self,
            "false where embeddings are tied",
        )
        if self.normalization == "groupnorm" and "normalization" in uses:
            _require(
                hidden % NORM_GROUPS == 0,
                "hidden_dim",
                self,
                f"a multiple of {NORM_GROUPS} for groupnorm",
            )

    @property
    def heads(self) -> "tuple[Heads, ...]":
        """How it splits its channels; a shape of several models, how any of them do."""
        return (Heads(self.num_heads, self.key_value_heads),)

    @property
    def attention_channels(self) -> int:
        """Channels of all query heads together."""
        return self.attention_dim or self.hidden_dim

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.attention_channels // self.num_heads

    @property
    def rotary_channels(self) -> int:
        """Channels of a head that turn, where any do."""
        return self.rotary_dim or self.head_dim

    @property
    def out_bias(self) -> bool:
        """True if attention's last layer has a bias."""
        return self.biases and self.qkv_bias

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values; each serves as many query heads."""
        if "kv_heads" not in USES[self.arch_type]:
            return self.num_heads
        return self.kv_heads or self.num_heads // 2

    @property
    def feedforward_dim(self) -> int:
        """Channels inside the feed-forward layer, before pruning."""
        if self.ffn_dim is not None:
            return self.ffn_dim
        return int(self.hidden_dim * self.ffn_multiplier)

    @property
    def inner_channels(self) -> int:
        """Channels that pruning chooses from: the feed-forward layer's, or Mamba's."""
        if "inner_dim" in USES[self.arch_type]:
            return self.inner_dim or MAMBA_EXPAND * self.hidden_dim
        return self.feedforward_dim

    @property
    def step_rank(self) -> int:
        """Rank of Mamba's step-size projection, hidden_dim / 16 rounded up."""
        return -(-self.hidden_dim // MAMBA_RANK_DIVISOR)

    @property
    def activation_form(self) -> str:
        """The activation, and whether its GELU is the approximation."""
        approximate = self.tanh_gelu and self.activation in ("gelu", "geglu")
        return f"{self.activation}_tanh" if approximate else self.activation

    @property
    def gated(self) -> bool:
        """True if the feed-forward layer has a gating matrix."""
        return self.activation in GATED_ACTIVATIONS

    def canonical(self) -> "ArchitectureConfig":
        """The one config of all in its family that say the same model.

        Fields the family does not read take a fixed value, and an override
        (`ffn_dim`, `kv_heads`, `inner_dim`, `attention_dim`) that only repeats its
        default is dropped. Families are not merged: flash attention stays flash
        attention.
        """
        uses = USES[self.arch_type]
        changes: dict[str, Any] = {
            name: value for name, value in UNUSED.items() if name not in uses
        }
        if "ffn_dim" in uses and self.ffn_dim is not None:
            if self.ffn_dim != int(self.hidden_dim * self.ffn_multiplier):
                changes["ffn_multiplier"] = UNUSED["ffn_multiplier"]
            multiplier = changes.get("ffn_multiplier", self.ffn_multiplier)
            if self.ffn_dim == int(self.hidden_dim * multiplier):
                changes["ffn_dim"] = None
        if "kv_heads" in uses and self.kv_heads == self.num_heads / 2:
            changes["kv_heads"] = None
        if "inner_dim" in uses and self.inner_dim == MAMBA_EXPAND * self.hidden_dim:
            changes["inner_dim"] = None
        if self.attention_dim == self.hidden_dim:
            changes["attention_dim"] = None
        if self.rotary_dim == self.head_dim:
            changes["rotary_dim"] = None
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, str | int | float | bool | None]:
        """The fields by name, in their order, as JSON types.

        A field of `VARIANTS` is among them where it is another than there.
        """
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in VARIANTS or value != VARIANTS[name]
        }

    def to_json(self) -> str:
        """An indented JSON object that `from_json` reads back."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict) -> "ArchitectureConfig":
        """Reads `to_dict`'s form.

        Raises:
          ValueError: an unknown or missing key, or a value out of range.
        """
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise ValueError(f"a config is an object of fields, got {kind}")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = [name for name in values if name not in fields]
        if unknown:
            raise ValueError(
                f"unknown config key {', '.join(map(repr, unknown))}; "
                f"known: {', '.join(fields)}"
            )
        missing = [
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and name not in values
        ]
        if missing:
            raise ValueError(f"config lacks {', '.join(missing)}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> "ArchitectureConfig":
        """Reads `to_json`'s form; errors as `from_dict`, and for broken JSON."""
        try:
            values = json.loads(text)
        except RecursionError:
            raise ValueError("config is not JSON: it is nested too deeply") from None
        except ValueError as error:  # a number of thousands of digits, too
            raise ValueError(f"config is not JSON: {error}") from None
        return cls.from_dict(values)


def _require(condition: bool, name: str, config: object, allowed: str) -> None:
    if not condition:
        got = getattr(config, name)
        raise ValueError(f"{name}={got!r} is not allowed: needs {allowed}")
