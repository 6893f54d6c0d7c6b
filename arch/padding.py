"""A small model in the corner of a larger one's zeros, and out of it again.

Zero padding is a fixed point of training: every padded weight has a gradient of
exactly zero. So models of different width, depth and inner channels train in
one compiled program, the shape, each as it would alone.

The residual stream is padded inside each of its 8 groups (see
`arch.traits.channel_index`), whatever the norm, so that one layout serves all.
Channels of a head, inner channels, ranks and layers are padded behind.

The number of heads is data too. A shape's channels for queries, keys and values
are one row, which each member splits into heads of its own (see
`arch.layers.heads`): a head is padded to the shape's width over the member's
number of heads.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from arch.config import NORM_GROUPS, ArchitectureConfig, Heads
from arch.families import USES, VARIANTS, has_heads
from arch.initial import shapes_of
from arch.layers.heads import head_channels
from arch.layout import fan_in, input_axes, layout_of
from arch.model import Params, build_model
from arch.traits import Traits, channel_index, traits_of

# What runs along each axis of a tensor, layer left out; None is the same for
# all members, and heads are two axes, heads and the channels of each. By the module
# that owns a matrix, by its own name for any other tensor, and by the number of
# axes, for RWKV's keys and values have no heads.
_AXES: dict[tuple[str, int], tuple[str | None, ...]] = {
    ("embed", 2): (None, "stream"),
    ("head", 2): ("stream", None),
    ("query", 3): ("stream", "heads"),
    ("key", 3): ("stream", "key_heads"),
    ("value", 3): ("stream", "key_heads"),
    ("out", 3): ("heads", "stream"),
    ("up", 2): ("stream", "inner"),
    ("gate", 2): ("stream", "inner"),
    ("down", 2): ("inner", "stream"),
    ("key", 2): ("stream", "stream"),
    ("value", 2): ("stream", "stream"),
    ("receptance", 2): ("stream", "stream"),
    ("output", 2): ("stream", "stream"),
    ("in_proj", 3): ("stream", None, "inner"),
    ("x_proj", 2): ("inner", "drawn"),
    ("dt_proj", 2): ("rank", "inner"),
    ("out_proj", 2): ("inner", "stream"),
    ("scale", 1): ("stream",),
    ("bias", 1): ("stream",),
    ("positions", 2): (None, "stream"),
    ("head.bias", 1): (None,),
    ("up.bias", 1): ("inner",),
    ("gate.bias", 1): ("inner",),
    ("query.bias", 2): ("heads",),
    ("key.bias", 2): ("key_heads",),
    ("value.bias", 2): ("key_heads",),
    ("mix_key", 1): ("stream",),
    ("mix_value", 1): ("stream",),
    ("mix_receptance", 1): ("stream",),
    ("decay", 1): ("stream",),
    ("bonus", 1): ("stream",),
    ("conv_kernel", 2): (None, "inner"),
    ("conv_bias", 1): ("inner",),
    ("dt_bias", 1): ("inner",),
    ("A_log", 2): ("inner", None),
    ("D", 1): ("inner",),
}

# Where there are no groups, each query head has a key head of its own.
_UNGROUPED = {"grouped_query_attention": "transformer"}

# The traits that a model chooses: all that are not its size.
CHOSEN = (
    "normalization",
    "activation",
    "position_encoding",
    "attention_dropout",
    "residual_dropout",
)

# What a shape has where its members do not decide: room for any of them.
_ROOMY: dict[str, Any] = {
    "normalization": "layernorm",
    "activation": "gelu",
    "position_encoding": "absolute",
    "attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "quantization": "fp16",
    "pruning_ratio": 0.0,
    "ffn_multiplier": 4.0,
    "ffn_dim": None,
    "inner_dim": None,
    "kv_heads": None,
}

# The fields that members of one shape share, and those of `VARIANTS`.
_SHARED = ("arch_type", "vocab_size", "max_seq_length", "tie_embeddings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape(ArchitectureConfig):
    """What holds several configs; its own heads only lay out its tensors.

    Attributes:
      members: how they may split their channels, in order.
      agreed: traits that all of them have as the shape does, and that need not be
        data.
    """

    members: tuple[Heads, ...]
    agreed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        members = tuple(Heads(*heads) for heads in self.members)  # JSON has lists
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "agreed", tuple(self.agreed))
        super().__post_init__()

    @property
    def heads(self) -> tuple[Heads, ...]:
        """See `ArchitectureConfig.heads`."""
        return self.members


def shape_key(config: ArchitectureConfig) -> tuple:
    """What members of one shape have in common: equal for those that fit together.

    Attention with and without groups differs in its heads alone, which are data. A
    width that is no multiple of 8 has no groups to pad in, and shares a shape with
    its like; so does attention that is not as wide as the residual stream.
    """
    _, *shared = (getattr(config, name) for name in _SHARED)
    odd = config.hidden_dim if config.hidden_dim % NORM_GROUPS else 0
    variants = [
        (name, getattr(config, name))
        for name, value in VARIANTS.items()
        if getattr(config, name) != value
    ]
    family = _UNGROUPED.get(config.arch_type, config.arch_type)
    own = config.attention_dim and config.hidden_dim
    return (family, *shared, odd, own, *variants)


def common_shape(
    configs: Sequence[ArchitectureConfig],
    narrow: bool = False,
    settled: Collection[str] = (),
) -> Shape:
    """The smallest shape that holds all the configs.

    Args:
      configs: of one `shape_key`.
      narrow: whether it holds no other than their norm, activation, position encoding
        and dropout, where they agree.
      settled: those of these that no model has otherwise which may ever be asked for.

    Returns:
      A config whose norm, activation and position encoding are the ones that
      leave room for any, where they are neither settled nor narrow; its depth is the
      greatest.

    Raises:
      ValueError: the configs do not fit together.
    """
    first = configs[0]
    keys = {shape_key(config) for config in configs}
    if len(keys) > 1:
        raise ValueError(f"these configs share no shape: {sorted(map(str, keys))}")
    grouped = any(config.arch_type in _UNGROUPED for config in configs)
    agreed = _agreed(configs, CHOSEN if narrow else settled)
    sizes = {
        "arch_type": next(iter(_UNGROUPED)) if grouped else first.arch_type,
        "num_layers": max(config.num_layers for config in configs),
        "hidden_dim": max(config.hidden_dim for config in configs),
    }
    fields = _ROOMY | sizes | _inner_of(configs) | _heads_for(configs)
    if any(map(_has_gate, configs)):
        fields["activation"] = "geglu"
    fields |= agreed | {"agreed": tuple(agreed)}
    every = {field.name for field in dataclasses.fields(ArchitectureConfig)}
    shared = {name: getattr(first, name) for name in every.difference(fields)}
    shape = Shape(**fields, **shared).canonical()
    assert isinstance(shape, Shape)
    return shape


def _inner_of(configs: Sequence[ArchitectureConfig]) -> dict[str, Any]:
    """The field that has the most inner channels of any."""
    inner = max(config.inner_channels for config in configs)
    own = "inner_dim" if "inner_dim" in USES[configs[0].arch_type] else "ffn_dim"
    return {own: inner}


def _heads_for(configs: Sequence[ArchitectureConfig]) -> dict[str, Any]:
    """All splits into heads, and one of them that has room for any keys and values."""
    members = tuple(sorted({heads for one in configs for heads in _heads_of(one)}))
    row = max(config.attention_channels for config in configs)
    heads = max(own.query for own in members if row % own.query == 0)
    channels = max(own.key_value * (row // own.query) for own in members)
    kv_heads = next(
        number
        for number in range(1, heads + 1)
        if heads % number == 0 and number * (row // heads) >= channels
    )
    return {"members": members, "num_heads": heads, "kv_heads": kv_heads}


def holds(shape: ArchitectureConfig, config: ArchitectureConfig) -> bool:
    """True if the config fits into the shape."""
    return (
        shape_key(shape) == shape_key(config)
        and shape.num_layers >= config.num_layers
        and shape.hidden_dim >= config.hidden_dim
        and shape.inner_channels >= config.inner_channels
        and (_has_gate(shape) or not _has_gate(config))
        and set(_heads_of(config)) <= set(_heads_of(shape))
        and (not isinstance(shape, Shape) or _agrees(shape, config))
    )


def with_constants(traits: Traits, shape: ArchitectureConfig, vmapped: bool) -> Traits:
    """A member's traits, with constants for what no member of the shape has otherwise.

    Args:
      traits: as data.
      shape: from `common_shape`; any other config leaves all of them data.
      vmapped: whether members run at once. Then they have the shape's depth: a layer
        of zeros is the identity, and chosen by data both would run.
    """
    names = shape.agreed if isinstance(shape, Shape) else ()
    names = (*names, "depth") if vmapped else names
    own = traits_of(shape)._asdict()
    known: dict[str, Any] = {name: own[name] for name in names}
    return traits._replace(**known)


def _agrees(shape: Shape, config: ArchitectureConfig) -> bool:
    uses = USES[config.arch_type]
    return all(
        getattr(shape, name) == getattr(config, name)
        for name in shape.agreed
        if name in uses
    )


def _agreed(
    configs: Sequence[ArchitectureConfig], names: Collection[str]
) -> dict[str, Any]:
    """Traits that the configs have in common, of these and what no family of them has.

    Others are data: most programs that are compiled for some models serve others.
    """
    uses = frozenset().union(*(USES[config.arch_type] for config in configs))
    found = {}
    for name in CHOSEN:
        values = {getattr(config, name) for config in configs}
        data = any(isinstance(one, Shape) and name not in one.agreed for one in configs)
        if name not in uses or (len(values) == 1 and not data and name in names):
            found[name] = next(iter(values))
    return found


def pad(tree: Params, config: ArchitectureConfig, shape: ArchitectureConfig) -> Params:
    """A member's tensors in their places among the shape's zeros.

    Args:
      tree: of the structure of the config's "params": parameters, gradients,
        moments of an optimizer.
      config: the member; the shape holds it.
      shape: from `common_shape`, or any config.

    Returns:
      The tree of the shape, NumPy arrays of the same dtypes.

    Raises:
      ValueError: the config does not fit into the shape.
    """
    if not holds(shape, config):
        raise ValueError(f"{config} does not fit into {shape}")
    given, padded = flatten_dict(tree), {}
    for path, leaf in flatten_dict(parameter_shapes(shape)).items():
        values = given.get(path)  # None: a gate, where the member has none
        wide = np.zeros(leaf.shape, leaf.dtype if values is None else values.dtype)
        if values is not None:
            axes = _axes_of(path, wide.ndim)
            merged = _merged(axes, wide)
            places = _places(axes, merged.shape, config, shape)
            merged[places] = _merged(axes, values)
        padded[path] = wide
    return unflatten_dict(padded)


def extract(
    tree: Params, config: ArchitectureConfig, shape: ArchitectureConfig
) -> Params:
    """The inverse of `pad`: a member's own tensors, NumPy arrays."""
    given, taken = flatten_dict(tree), {}
    for path, leaf in flatten_dict(parameter_shapes(config)).items():
        axes = _axes_of(path, len(leaf.shape))
        wide = _merged(axes, np.asarray(given[path]))
        own = wide[_places(axes, wide.shape, config, shape)]
        taken[path] = own.reshape(leaf.shape)
    return unflatten_dict(taken)


def parameter_shapes(config: ArchitectureConfig) -> Params:
    """The "params" of the config's model as `jax.ShapeDtypeStruct`s."""
    return shapes_of(build_model(config))


def true_first(path: tuple, shape: tuple[int, ...], traits: Traits) -> jax.Array | None:
    """The order that sets the true inputs of a padded matrix first.

    Quantised blocks run along a matrix's rows; in this order the blocks are
    those of the member's own matrix.

    Args:
      path: `jax.tree_util` key path of the matrix below "params".
      shape: of the padded matrix.
      traits: the member's.

    Returns:
      i32[row length], or None if the true inputs come first as they are.
    """
    layout = layout_of(path)
    axes = _axes_of(tuple(entry.key for entry in path), len(shape))
    along = axes[input_axes(layout)[0]]
    if along not in ("stream", "heads"):
        return None
    length = fan_in(layout, shape)
    own = traits.width if along == "stream" else traits.attention
    if isinstance(own, int) and own == length:
        return None
    if along == "stream":
        _, true = channel_index(length, own)
    else:
        heads = traits.query_heads
        head, channel = jnp.divmod(jnp.arange(length), length // heads)
        true = (head < heads) & (channel < own // heads)
    return jnp.argsort(~true, stable=True)


def _places(
    axes: Sequence[str | None],
    shape: tuple[int, ...],
    config: ArchitectureConfig,
    wide: ArchitectureConfig,
) -> tuple[np.ndarray, ...]:
    """Where the member's tensor lies in the shape's: indices for NumPy."""
    return np.ix_(
        *[
            np.arange(length) if axis is None else _along(axis, length, config, wide)
            for axis, length in zip(axes, shape, strict=True)
        ]
    )


def _along(
    axis: str, length: int, config: ArchitectureConfig, wide: ArchitectureConfig
) -> np.ndarray:
    if axis in ("heads", "key_heads"):
        number = config.num_heads if axis == "heads" else config.key_value_heads
        size = head_channels(wide.attention_channels, config.num_heads)
        begin = size * np.arange(number)
        return (begin[:, None] + np.arange(config.head_dim)[None]).reshape(-1)
    if axis == "stream" and config.hidden_dim < wide.hidden_dim:
        return np.flatnonzero(channel_index(length, config.hidden_dim)[1])
    in_front = {
        "layer": config.num_layers,
        "stream": length,
        "inner": config.inner_channels,
        "rank": config.step_rank,
        "drawn": length - wide.step_rank + config.step_rank,
    }
    return np.arange(in_front[axis])


def _merged(axes: Sequence[str | None], array: np.ndarray) -> np.ndarray:
    """Heads and their channels as one axis; a view."""
    for axis, along in enumerate(axes):
        if along in ("heads", "key_heads"):
            return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])
    return array


def _axes_of(path: tuple[str, ...], number: int) -> tuple[str | None, ...]:
    """What runs along a tensor's axes, its layer axis included; heads count once."""
    owner = path[-2] if path[-1] in ("kernel", "embedding") else path[-1]
    if path[0] == "blocks":
        number -= 1
        if (f"{path[-2]}.{owner}", number) in _AXES:  # a bias of heads
            owner = f"{path[-2]}.{owner}"
        return ("layer", *_AXES[owner, number])
    if path == ("head", "bias"):
        owner = "head.bias"
    return _AXES[owner, number]


def _heads_of(config: ArchitectureConfig) -> tuple[Heads, ...]:
    return config.heads if has_heads(config.arch_type) else (Heads(1, 1),)


def _has_gate(config: ArchitectureConfig) -> bool:
    return "activation" in USES[config.arch_type] and config.gated
