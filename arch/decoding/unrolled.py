"""A language model laid out layer by layer, for decoding.

The stack of `LanguageModel` takes states [layers, ...] and gives back new ones:
in a loop over tokens that copies every cache at each token. With a state and a
tree of weights for each layer, XLA updates the states in place.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.block import Block, sublayers_of
from arch.config import ArchitectureConfig
from arch.layers.sublayer import tokens_read
from arch.mixers.attention import KeyValueCache
from arch.model import Params, build_model
from arch.traits import traits_of


class Weights(NamedTuple):
    """A model's parameters."""

    layers: tuple[Params, ...]  # of each block
    others: Params  # embedding, last norm, head


class LayerStates(NamedTuple):
    """What a model remembers of the tokens it has read."""

    layers: tuple[dict, ...]  # sub-layer name -> its state
    read: jax.Array  # i32[B], tokens


@jax.jit  # one program instead of one for each slice
def unstack(params: Params) -> Weights:
    """Lays out the parameters of a `LanguageModel`; copies them."""
    others = {name: tree for name, tree in params.items() if name != "blocks"}
    number = jax.tree.leaves(params["blocks"])[0].shape[0]
    layers = [
        jax.tree.map(lambda leaf, index=index: leaf[index], params["blocks"])
        for index in range(number)
    ]
    return Weights(tuple(layers), others)


def init_layers(
    config: ArchitectureConfig,
    batch: int,
    capacity: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> LayerStates:
    """As `arch.init_states`, with a state for each layer."""
    layers = [
        {
            name: layer.init_state(config, batch, capacity, dtype)
            for name, layer in sublayers_of(config.arch_type).items()
        }
        for _ in range(config.num_layers)
    ]
    return LayerStates(tuple(layers), jnp.zeros(batch, jnp.int32))


def can_rewind(states: LayerStates) -> bool:
    """Whether all that is remembered is a cache of tokens, which `rewound` shortens."""
    return all(
        state is None or isinstance(state, KeyValueCache)
        for layer in states.layers
        for state in layer.values()
    )


def rewound(states: LayerStates, read: int) -> LayerStates:
    """The states after the first `read` tokens alone; see `can_rewind`."""

    def shorter(state: KeyValueCache | None) -> KeyValueCache | None:
        return state and state._replace(length=jnp.full_like(state.length, read))

    layers = tuple(
        {name: shorter(state) for name, state in layer.items()}
        for layer in states.layers
    )
    return LayerStates(layers, jnp.full_like(states.read, read))


def forward_with_cache(
    config: ArchitectureConfig,
    weights: Weights,
    tokens: jax.Array,
    states: LayerStates,
    lengths: jax.Array | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> tuple[jax.Array, LayerStates]:
    """As `LanguageModel.read_prompt`.

    Args:
      config: of the model.
      weights: its parameters.
      tokens: i32[B, T].
      states: from `init_layers` or an earlier call.
      lengths: i32[B], real tokens of each row, at least 1; None if all are.
      dtype: of the residual stream and of what enters a matrix product.

    Returns:
      f32[B, V], the logits after each row's last real token, and the states.
    """
    model, traits = build_model(config, dtype), traits_of(config)
    x = _apply(model, weights.others, tokens, states.read, method="embed_tokens")
    after = []
    for params, state in zip(weights.layers, states.layers, strict=True):
        block = Block(config, dtype)
        x, state = _apply(block, params, x, state, traits, None, lengths)
        after.append(state)
    if lengths is None:
        x = x[:, -1:]
    else:
        x = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)
    read = states.read + tokens_read(lengths, tokens.shape[1])
    logits = _apply(model, weights.others, x, method="logits")
    return logits[:, 0], LayerStates(tuple(after), read)


def _apply(
    module: nn.Module, params: Params, *arguments: Any, method: str | None = None
) -> Any:
    return module.apply({"params": params}, *arguments, method=method)
