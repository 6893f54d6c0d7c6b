"""Parts of a model behind gates: what each is worth, and the model without some.

A part is an inner channel, a group of heads or a whole layer. Each is multiplied by a
gate where it leaves: 1 is the model as it is, 0 the model without the part. The
gradient of a gate is activation times gradient, summed over tokens, and its square
estimates how much the part is worth: first-order Taylor importance (Molchanov et al.
2019, arXiv:1906.10771).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from arch import ArchitectureConfig, Params
from arch.cost import CHANNEL_MULTIPLE
from arch.families import has_heads
from jaxnas.compress.prune import pruned_config, take_channels

# Matrices that write to the residual stream, and those that inner channels leave by:
# Mamba's are read by what draws its step sizes, too.
_WRITING = ("out", "down", "out_proj", "output")
_INNER = ("down", "out_proj", "x_proj")
_READ = ("query", "key", "value")
_HEAD_AXES = {  # stacked
    **{("mixer", name, "kernel"): 2 for name in _READ},
    **{("mixer", name, "bias"): 1 for name in _READ},
    ("mixer", "out", "kernel"): 1,
}

_SHARES = 16  # of the inner channels: how many go at once, in whole blocks

# (params, windows i32[B, T+1]) -> f32[], nats per token.
Loss = Callable[[Params, jax.Array], jax.Array]


Array: TypeAlias = jax.Array | np.ndarray


class Gates(NamedTuple):
    """Of all parts of a model; f32, or the parts' importance in the same places."""

    inner: Array  # [L, channels]: feed-forward's, or Mamba's
    groups: Array  # [L, key heads], each with its queries; or [L, 0]
    layers: Array  # [L]


class Cut(NamedTuple):
    """A little of one kind of part that could go."""

    part: str
    gates: Gates  # with those closed, too


def open_gates(config: ArchitectureConfig) -> Gates:
    """All parts of the model."""
    layers = config.num_layers
    groups = config.key_value_heads if has_heads(config.arch_type) else 0
    return Gates(
        np.ones((layers, config.inner_channels), np.float32),
        np.ones((layers, groups), np.float32),
        np.ones(layers, np.float32),
    )


def gated(params: Params, gates: Gates) -> Params:
    """The model with its parts multiplied by their gates."""
    flat = flatten_dict(params["blocks"])
    for path, kernel in flat.items():
        name, gate = path[-2], jnp.ones((len(kernel), 1))
        if name in _WRITING:
            gate = gate * gates.layers[:, None]
        inputs = path[-1] != "bias"  # which has none
        if name in _INNER and inputs:
            gate = gate * gates.inner
        if name == "out" and inputs:
            repeats = kernel.shape[1] // gates.groups.shape[1]
            gate = gate * jnp.repeat(gates.groups, repeats, axis=1)
        if name in _WRITING + _INNER:
            flat[path] = kernel * gate.reshape(*gate.shape, *[1] * (kernel.ndim - 2))
    return params | {"blocks": unflatten_dict(flat)}


def taylor_importance(
    loss: Loss, params: Params, gates: Gates, windows: jax.Array
) -> Gates:
    """The mean over windows of each gate's squared gradient; to be jitted.

    Args:
      loss: of the model.
      params: its "params".
      gates: those that are open, 1, and those that are not, 0.
      windows: i32[N, T+1], of calibration data.
    """
    slope = jax.grad(lambda gates, window: loss(gated(params, gates), window[None]))

    def add(sums: Gates, window: jax.Array) -> tuple[Gates, None]:
        squares = jax.tree.map(jnp.square, slope(gates, window))
        return jax.tree.map(jnp.add, sums, squares), None

    zeros = jax.tree.map(jnp.zeros_like, gates)
    sums, _ = jax.lax.scan(add, zeros, windows)
    return jax.tree.map(lambda one: one / len(windows), sums)


def cuts(config: ArchitectureConfig, gates: Gates, worth: Gates) -> list[Cut]:
    """What could go next of each kind of part: the least worth of it.

    All layers keep the same number of channels and of groups, each its own.

    Args:
      config: of the model with all gates open.
      gates: open or closed.
      worth: as `taylor_importance` gives it.
    """
    found = []
    at_once = config.inner_channels // _SHARES // CHANNEL_MULTIPLE * CHANNEL_MULTIPLE
    at_once = max(CHANNEL_MULTIPLE, at_once)
    inner = int(gates.inner[0].sum())
    # A width that is no whole number of blocks becomes one.
    fewer = (inner - 1) // CHANNEL_MULTIPLE * CHANNEL_MULTIPLE
    fewer = min(fewer, -(-(inner - at_once) // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE)
    if fewer >= CHANNEL_MULTIPLE:
        kept = _best(gates.inner, worth.inner, fewer)
        found.append(Cut("inner channels", gates._replace(inner=kept)))
    groups = int(gates.groups[:1].sum())
    # ALiBi's slopes go by a head's place among all: without one they are others.
    if groups > 1 and config.position_encoding != "alibi":
        kept = _best(gates.groups, worth.groups, groups - 1)
        found.append(Cut("heads", gates._replace(groups=kept)))
    if (layers := int(gates.layers.sum())) > 1:
        kept = _best(gates.layers[None], np.asarray(worth.layers)[None], layers - 1)
        found.append(Cut("layers", gates._replace(layers=kept[0])))
    return found


def cut_config(config: ArchitectureConfig, gates: Gates) -> ArchitectureConfig:
    """The config of the model without the parts whose gates are closed."""
    inner, layers = int(gates.inner[0].sum()), int(gates.layers.sum())
    changes: dict[str, Any] = {"num_layers": layers}
    groups = int(gates.groups[:1].sum())
    if 0 < groups < config.key_value_heads:
        heads = groups * (config.num_heads // config.key_value_heads)
        changes |= {"num_heads": heads, "attention_dim": heads * config.head_dim}
        if config.key_value_heads < config.num_heads:
            changes["kv_heads"] = groups
    smaller = dataclasses.replace(config, **changes)
    if inner < config.inner_channels:
        smaller = pruned_config(smaller, inner)
    return smaller


def without(params: Params, gates: Gates) -> Params:
    """The weights of `cut_config`'s model: what `gated` gives, and smaller."""
    params = take_channels(params, _open(gates.inner))
    flat = flatten_dict(params["blocks"])
    if gates.groups.shape[1]:
        groups = _open(gates.groups)
        for path, axis in _HEAD_AXES.items():
            if path not in flat:
                continue
            repeats = flat[path].shape[axis] // gates.groups.shape[1]
            kept = (groups[..., None] * repeats + np.arange(repeats)).reshape(
                len(groups), -1
            )
            others = tuple({*range(1, flat[path].ndim)} - {axis})
            places = jnp.expand_dims(kept, others)
            flat[path] = jnp.take_along_axis(flat[path], places, axis=axis)
    layers = np.flatnonzero(gates.layers)
    return params | {
        "blocks": unflatten_dict({path: leaf[layers] for path, leaf in flat.items()})
    }


def _best(gates: Array, worth: Array, number: int) -> np.ndarray:
    """Gates with so many in each row left open, those that are worth the most."""
    worth = np.where(np.asarray(gates) > 0, np.asarray(worth), -np.inf)
    rank = np.argsort(np.argsort(-worth, axis=1, kind="stable"), axis=1)
    return (rank < number).astype(np.float32)


def _open(gates: Array) -> np.ndarray:
    """i32[L, number]: the open ones of each row, in their order."""
    return np.stack([np.flatnonzero(row) for row in np.asarray(gates)])
