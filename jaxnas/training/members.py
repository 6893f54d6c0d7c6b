"""Many models trained by one program, each as it would be alone."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig, LanguageModel, Params
from arch.padding import extract, pad, with_constants
from arch.traits import Traits, traits_of
from jaxnas.training.loop import Schedule, Trained, TrainState, training_functions
from jaxnas.training.settings import TrainSettings


class Member(NamedTuple):
    """What sets a member's training apart; arrays, stacked along axis 0."""

    schedule: Schedule
    key: jax.Array  # PRNG key of the dropout
    traits: Traits | None  # None: the shape's own, compiled in


def member_training(
    model: LanguageModel, settings: TrainSettings, vmapped: bool
) -> Callable:
    """The training of members side by side, to be jitted.

    Args:
      model: of the shape that holds the members.
      settings: see `TrainSettings`.
      vmapped: whether members run at once, in wider operations, or one after the
        other, where layers that a member lacks are skipped.

    Returns:
      (states [M], members [M], tokens, starts, stop) -> (states, losses f32[M, S]);
      the last three are shared, as for a `TrainingFunctions`.
    """
    run = training_functions(model, settings).run

    def train_one(
        state: TrainState,
        member: Member,
        tokens: jax.Array,
        starts: jax.Array,
        stop: jax.Array,
    ) -> Trained:
        traits = member.traits
        if traits is not None:
            traits = with_constants(traits, model.config, vmapped)
        return run(state, tokens, starts, member.schedule, member.key, stop, traits)

    def train(
        states: TrainState,
        members: Member,
        tokens: jax.Array,
        starts: jax.Array,
        stop: jax.Array,
    ) -> Trained:
        if not vmapped and len(members.key) == 1:  # nothing to loop over
            state, member = jax.tree.map(lambda leaf: leaf[0], (states, members))
            done = train_one(state, member, tokens, starts, stop)
            return jax.tree.map(lambda leaf: leaf[None], done)
        if vmapped:
            shared = (None, None, None)
            every = jax.vmap(train_one, (0, 0, *shared))
            return every(states, members, tokens, starts, stop)
        return jax.lax.map(
            lambda one: train_one(one[0], one[1], tokens, starts, stop),
            (states, members),
        )

    return train


def traits_array(config: ArchitectureConfig) -> Traits:
    """The config's traits as data, NumPy scalars."""
    return jax.tree.map(
        lambda value: np.asarray(value, _DTYPES[type(value)]), traits_of(config)
    )


_DTYPES = {int: np.int32, float: np.float32}


def stack_members(
    configs: Sequence[ArchitectureConfig] | None,
    schedules: Sequence[Schedule],
    keys: Sequence[jax.Array],
) -> Member:
    """What `member_training` takes, on the host: one entry a lane.

    Args:
      configs: whose traits are data; None where they are compiled in.
      schedules: of each member.
      keys: PRNG keys of each member's dropout.
    """
    data = np.stack([np.asarray(jax.random.key_data(key)) for key in keys])
    return Member(
        stack([jax.tree.map(np.float32, schedule) for schedule in schedules]),
        jax.random.wrap_key_data(jnp.asarray(data)),
        None if configs is None else stack([traits_array(one) for one in configs]),
    )


def stack(trees: list) -> Any:
    """Trees of host arrays, stacked along a new axis 0; a view if there is one."""
    if len(trees) == 1:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], trees[0])
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def pad_state(
    state: TrainState, config: ArchitectureConfig, shape: ArchitectureConfig
) -> TrainState:
    """A member's training state in the shape: weights and moments, on the host."""
    return _map_params(lambda tree: pad(tree, config, shape), state)


def extract_state(
    state: TrainState, config: ArchitectureConfig, shape: ArchitectureConfig
) -> TrainState:
    """The inverse of `pad_state`: the state of an ordinary training of the config."""
    return _map_params(lambda tree: extract(tree, config, shape), state)


def _map_params(function: Callable[[Params], Params], state: TrainState) -> TrainState:
    def is_params(tree: Any) -> bool:
        return isinstance(tree, dict) and "blocks" in tree

    return jax.tree.map(
        lambda tree: function(tree) if is_params(tree) else np.asarray(tree),
        state,
        is_leaf=is_params,
    )
