"""Structured pruning: whole inner channels go, a smaller dense model stays.

A feed-forward channel's weight norm is the norm of what leads into it times
the norm of what leads out. The channels with the largest stay, in their order;
each layer chooses its own. The count is `arch.cost.kept_channels`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.cost import kept_channels

# Matrices of the feed-forward layer -> the axis of its inner channels.
_INNER_AXIS = {"up": 2, "gate": 2, "down": 1}  # [L, D, F], [L, D, F], [L, F, D]


def prune_in_place(params: dict, kept: int | jax.Array) -> dict:
    """Prunes without changing a shape: removed channels become zeros, behind.

    It is the same function as the smaller model that `prune` cuts out, and
    the weights lie in the same quantised blocks.

    Args:
      params: a transformer's "params".
      kept: channels of each layer that stay; an int or i32[].

    Returns:
      The same tree.
    """
    layer = params["blocks"]["feedforward"]
    if isinstance(kept, int) and kept == layer["down"]["kernel"].shape[1]:
        return params
    score = _norms(layer["down"]["kernel"], axis=2)
    entering = [layer[name]["kernel"] for name in ("up", "gate") if name in layer]
    score *= jnp.sqrt(sum(jnp.square(_norms(kernel, axis=1)) for kernel in entering))
    rank = jnp.argsort(jnp.argsort(score, axis=1, descending=True), axis=1)
    stays = rank < kept
    order = jnp.argsort(~stays, axis=1, stable=True)
    mask = jnp.take_along_axis(stays, order, axis=1)

    def sort(name, kernel):
        axis = _INNER_AXIS[name]
        index = jnp.expand_dims(order, 3 - axis)
        moved = jnp.take_along_axis(kernel, index, axis=axis)
        return jnp.where(jnp.expand_dims(mask, 3 - axis), moved, 0)

    pruned = {
        name: {"kernel": sort(name, module["kernel"])} for name, module in layer.items()
    }
    return params | {"blocks": params["blocks"] | {"feedforward": pruned}}


def prune(config: ArchitectureConfig, params: dict) -> tuple[ArchitectureConfig, dict]:
    """The smaller dense model.

    Args:
      config: with the pruning_ratio to apply.
      params: the unpruned model's "params".

    Returns:
      A config with pruning_ratio 0 and an explicit ffn_dim, and its "params".
    """
    if config.pruning_ratio == 0:
        return config, params
    kept = kept_channels(config.feedforward_dim, config.pruning_ratio)
    params = prune_in_place(params, kept)
    layer = {
        name: {
            "kernel": jax.lax.slice_in_dim(m["kernel"], 0, kept, axis=_INNER_AXIS[name])
        }
        for name, m in params["blocks"]["feedforward"].items()
    }
    smaller = dataclasses.replace(config, pruning_ratio=0.0, ffn_dim=kept)
    return smaller, params | {"blocks": params["blocks"] | {"feedforward": layer}}


def _norms(kernel: jax.Array, axis: int) -> jax.Array:
    return jnp.sqrt(jnp.square(kernel).sum(axis=axis))
