"""Structured pruning: whole inner channels go, a smaller dense model stays.

A channel's weight norm is the norm of what leads into it times the norm of what
leads out. The channels with the largest stay, in their order; each layer
chooses its own. The count is `arch.cost.kept_channels`. The channels are the
feed-forward layer's, or those of Mamba's mixer.
"""

import dataclasses
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from arch import Params
from arch.config import ArchitectureConfig
from arch.cost import kept_channels
from arch.families import USES

# Every tensor [L, ...] with inner channels -> their axis. What enters and what
# leaves sets a channel's norm.
_ENTERING = {"up.kernel": 2, "gate.kernel": 2, "in_proj.kernel": 3}
_LEAVING = {"down.kernel": 1, "out_proj.kernel": 1}
_OTHERS = {
    "up.bias": 1,
    "gate.bias": 1,
    "conv_kernel": 2,
    "conv_bias": 1,
    "x_proj.kernel": 1,
    "dt_proj.kernel": 2,
    "dt_bias": 1,
    "A_log": 1,
    "D": 1,
}
_INNER_AXIS = _ENTERING | _LEAVING | _OTHERS


def prune_in_place(
    params: Params, kept: int | jax.Array, xp: ModuleType = jnp
) -> Params:
    """Prunes without changing a shape: removed channels become zeros, behind.

    It is the same function as the smaller model that `prune` cuts out, and
    the weights lie in the same quantised blocks.

    Args:
      params: a language model's "params".
      kept: channels of each layer that stay; an int or i32[].
      xp: `jax.numpy`, or `numpy` to compile nothing.

    Returns:
      The same tree. To prune it once more changes nothing.
    """
    tensors = _inner_tensors(params)
    leaving = {name: x for name, x in tensors.items() if name in _LEAVING}
    if isinstance(kept, int) and all(kept == x.shape[1] for x in leaving.values()):
        return params
    entering = {name: x for name, x in tensors.items() if name in _ENTERING}
    score = _norms(entering, _ENTERING, xp) * _norms(leaving, _LEAVING, xp)
    rank = xp.argsort(xp.argsort(-score, axis=1, stable=True), axis=1)
    stays = rank < kept
    order = xp.argsort(~stays, axis=1, stable=True)
    mask = xp.take_along_axis(stays, order, axis=1)

    def sort(name: str, x: jax.Array) -> jax.Array:
        axis = _INNER_AXIS[name]
        others = tuple({*range(1, x.ndim)} - {axis})
        moved = xp.take_along_axis(x, xp.expand_dims(order, others), axis=axis)
        return xp.where(xp.expand_dims(mask, others), moved, xp.zeros_like(moved))

    return _with_tensors(params, {name: sort(name, x) for name, x in tensors.items()})


def pruned_in_place(config: ArchitectureConfig, params: Params, ratio: float) -> Params:
    """`prune_in_place` of a model's weights on the host, NumPy arrays."""
    kept = kept_channels(config.inner_channels, ratio)
    return prune_in_place(params, kept, np)


def prune(
    config: ArchitectureConfig, params: Params
) -> tuple[ArchitectureConfig, Params]:
    """The smaller dense model.

    Args:
      config: with the pruning_ratio to apply.
      params: the unpruned model's "params".

    Returns:
      A config with pruning_ratio 0 and an explicit count of inner channels, and
      its "params".
    """
    if config.pruning_ratio == 0:
        return config, params
    kept = kept_channels(config.inner_channels, config.pruning_ratio)
    params = prune_in_place(params, kept)
    cut = {
        name: jax.lax.slice_in_dim(x, 0, kept, axis=_INNER_AXIS[name])
        for name, x in _inner_tensors(params).items()
    }
    return pruned_config(config, kept), _with_tensors(params, cut)


def take_channels(params: Params, kept: np.ndarray) -> Params:
    """The smaller dense model of these channels.

    Args:
      params: a language model's "params".
      kept: i32[L, number], each layer's own.
    """
    taken = {}
    for name, x in _inner_tensors(params).items():
        axis = _INNER_AXIS[name]
        others = tuple({*range(1, x.ndim)} - {axis})
        places = jnp.expand_dims(kept, others)
        taken[name] = jnp.take_along_axis(jnp.asarray(x), places, axis=axis)
    return _with_tensors(params, taken)


def pruned_config(config: ArchitectureConfig, channels: int) -> ArchitectureConfig:
    """The config with this many inner channels and nothing left to prune."""
    if "inner_dim" in USES[config.arch_type]:
        return dataclasses.replace(config, inner_dim=channels, pruning_ratio=0.0)
    return dataclasses.replace(config, ffn_dim=channels, pruning_ratio=0.0)


def _home(params: Params) -> str:
    """The sub-layer that has the inner channels."""
    return "feedforward" if "feedforward" in params["blocks"] else "mixer"


def _inner_tensors(params: Params) -> dict[str, jax.Array]:
    """The tensors with inner channels, by their name in the sub-layer."""
    layer = flatten_dict(params["blocks"][_home(params)], sep=".")
    return {name: x for name, x in layer.items() if name in _INNER_AXIS}


def _with_tensors(params: Params, tensors: dict[str, jax.Array]) -> Params:
    home = _home(params)
    layer = flatten_dict(params["blocks"][home], sep=".") | tensors
    blocks = params["blocks"] | {home: unflatten_dict(layer, sep=".")}
    return params | {"blocks": blocks}


def _norms(
    tensors: dict[str, jax.Array], axes: dict[str, int], xp: ModuleType
) -> jax.Array:
    """Each channel's norm over all the tensors: f32[L, channels]."""
    squares = [
        xp.square(x).sum(axis=tuple({*range(1, x.ndim)} - {axes[name]}))
        for name, x in tensors.items()
    ]
    return xp.sqrt(sum(squares))
