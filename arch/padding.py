"""A small model in the corner of a larger one's zeros, and out of it again.

Zero padding is a fixed point of training: every padded weight has a gradient of
exactly zero. So models of different width, depth and inner channels train in
one compiled program, the shape, each as it would alone.

The residual stream is padded inside each of its 8 groups (see
`arch.traits.channel_index`), whatever the norm, so that one layout serves all.
Channels of a head, inner channels, ranks and layers are padded behind.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from arch.config import NORM_GROUPS, ArchitectureConfig
from arch.families import USES, has_heads
from arch.layout import input_axes, layout_of
from arch.model import Params, build_model
from arch.traits import channel_index

# What runs along each axis of a tensor, layer left out; None is the same for
# all members. By the module that owns a matrix, by its own name for any other
# tensor, and by the number of axes, for RWKV's keys and values have no heads.
_AXES: dict[tuple[str, int], tuple[str | None, ...]] = {
    ("embed", 2): (None, "stream"),
    ("head", 2): ("stream", None),
    ("query", 3): ("stream", None, "head"),
    ("key", 3): ("stream", None, "head"),
    ("value", 3): ("stream", None, "head"),
    ("out", 3): (None, "head", "stream"),
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

# The fields that members of one shape share.
_SHARED = ("arch_type", "vocab_size", "max_seq_length", "tie_embeddings")


def shape_key(config: ArchitectureConfig) -> tuple:
    """What members of one shape have in common: equal for those that fit together.

    Heads are a shape: padding them would multiply the work. A width that is no
    multiple of 8 has no groups to pad in, and shares a shape with its like.
    """
    shared = tuple(getattr(config, name) for name in _SHARED)
    heads = (0, 0)
    if has_heads(config.arch_type):
        heads = (config.num_heads, config.key_value_heads)
    odd = config.hidden_dim if config.hidden_dim % NORM_GROUPS else 0
    return (*shared, *heads, odd)


def common_shape(configs: Sequence[ArchitectureConfig]) -> ArchitectureConfig:
    """The smallest shape that holds all the configs.

    Args:
      configs: of one `shape_key`.

    Returns:
      A config whose norm, activation and position encoding are the ones that
      leave room for any; its depth is the greatest.

    Raises:
      ValueError: the configs do not fit together.
    """
    first = configs[0]
    keys = {shape_key(config) for config in configs}
    if len(keys) > 1:
        raise ValueError(f"these configs share no shape: {sorted(map(str, keys))}")
    uses = USES[first.arch_type]
    width = max(config.hidden_dim for config in configs)
    if has_heads(first.arch_type) and width % NORM_GROUPS == 0:
        # Rotary turns pairs of a head's channels.
        width = _multiple(width, math.lcm(NORM_GROUPS, 2 * first.num_heads))
    inner = max(config.inner_channels for config in configs)
    fields: dict[str, Any] = {
        "num_layers": max(config.num_layers for config in configs),
        "hidden_dim": width,
        "normalization": "layernorm",
        "activation": "gelu",
        "position_encoding": "absolute",
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "quantization": "fp16",
        "pruning_ratio": 0.0,
        "ffn_dim": None,
        "inner_dim": None,
    }
    if any(map(_has_gate, configs)):
        fields["activation"] = "geglu"
    if "inner_dim" in uses:
        fields["inner_dim"] = inner
    else:
        fields |= {"ffn_dim": inner, "ffn_multiplier": 4.0}
    if "kv_heads" in uses:
        fields["kv_heads"] = first.key_value_heads
    return dataclasses.replace(first, **fields).canonical()


def holds(shape: ArchitectureConfig, config: ArchitectureConfig) -> bool:
    """True if the config fits into the shape."""
    return (
        shape_key(shape) == shape_key(config)
        and shape.num_layers >= config.num_layers
        and shape.hidden_dim >= config.hidden_dim
        and shape.inner_channels >= config.inner_channels
        and (_has_gate(shape) or not _has_gate(config))
    )


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
            wide[_places(path, wide.shape, config, shape)] = values
        padded[path] = wide
    return unflatten_dict(padded)


def extract(
    tree: Params, config: ArchitectureConfig, shape: ArchitectureConfig
) -> Params:
    """The inverse of `pad`: a member's own tensors, NumPy arrays."""
    given, taken = flatten_dict(tree), {}
    for path in flatten_dict(parameter_shapes(config)):
        wide = np.asarray(given[path])
        taken[path] = wide[_places(path, wide.shape, config, shape)]
    return unflatten_dict(taken)


@functools.lru_cache(maxsize=256)
def parameter_shapes(config: ArchitectureConfig) -> Params:
    """The "params" of the config's model as `jax.ShapeDtypeStruct`s."""
    model = build_model(config)
    tokens = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]


def true_first(
    path: tuple, shape: tuple[int, ...], width: int | jax.Array, channels: int
) -> jax.Array | None:
    """The order that sets the true inputs of a padded matrix first.

    Quantised blocks run along a matrix's rows; in this order the blocks are
    those of the member's own matrix.

    Args:
      path: `jax.tree_util` key path of the matrix below "params".
      shape: of the padded matrix.
      width: the member's channels of the residual stream.
      channels: the shape's.

    Returns:
      i32[row length], or None if the true inputs come first as they are.
    """
    if isinstance(width, int) and width == channels:
        return None
    layout = layout_of(path)
    axes = _axes_of(tuple(entry.key for entry in path), len(shape))
    true, padded = np.ones(1, bool), False
    for axis in input_axes(layout):
        inside: np.ndarray | jax.Array = np.ones(shape[axis], bool)
        if axes[axis] == "stream":
            inside, padded = channel_index(channels, width)[1], True
        elif axes[axis] == "head":  # the heads have the stream's channels
            heads = channels // shape[axis]
            inside, padded = np.arange(shape[axis]) < width // heads, True
        true = (true[:, None] & inside[None]).reshape(-1)
    return jnp.argsort(~true, stable=True) if padded else None


def _places(
    path: tuple[str, ...],
    shape: tuple[int, ...],
    config: ArchitectureConfig,
    wide: ArchitectureConfig,
) -> tuple[np.ndarray, ...]:
    """Where the member's tensor lies in the shape's: indices for NumPy."""
    return np.ix_(
        *[
            np.arange(length) if axis is None else _along(axis, length, config, wide)
            for axis, length in zip(_axes_of(path, len(shape)), shape, strict=True)
        ]
    )


def _along(
    axis: str, length: int, config: ArchitectureConfig, wide: ArchitectureConfig
) -> np.ndarray:
    if axis == "stream" and config.hidden_dim < wide.hidden_dim:
        return np.flatnonzero(channel_index(length, config.hidden_dim)[1])
    in_front = {
        "layer": config.num_layers,
        "stream": length,
        "head": config.head_dim,
        "inner": config.inner_channels,
        "rank": config.step_rank,
        "drawn": length - wide.step_rank + config.step_rank,
    }
    return np.arange(in_front[axis])


def _axes_of(path: tuple[str, ...], number: int) -> tuple[str | None, ...]:
    """What runs along each of a tensor's axes, its layer axis included."""
    owner = path[-2] if path[-1] in ("kernel", "embedding") else path[-1]
    if path[0] == "blocks":
        return ("layer", *_AXES[owner, number - 1])
    return _AXES[owner, number]


def _has_gate(config: ArchitectureConfig) -> bool:
    return "activation" in USES[config.arch_type] and config.gated


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of
