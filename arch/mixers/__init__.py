"""Sequence mixers: (x, state, traits, dropout_key) -> (y, state)."""

from collections.abc import Callable
from typing import NamedTuple

from arch.families import FAMILIES
from arch.mixers.attention import Attention, attention_state


class Mixer(NamedTuple):
    """A family's mixer: the Flax module, and its empty state."""

    module: Callable  # (config, dtype, name=...) -> module
    init_state: Callable  # (config, batch, capacity, dtype) -> state


MIXERS = {"transformer": Mixer(Attention, attention_state)}


def mixer_of(arch_type: str) -> Mixer:
    """The family's mixer.

    Raises:
      ValueError: the family has none; the line names those that have.
    """
    if arch_type not in MIXERS:
        missing = [name for name in FAMILIES if name not in MIXERS]
        raise ValueError(
            f"arch_type={arch_type!r} has no modules in this version: can build "
            f"{', '.join(MIXERS)}; missing {', '.join(missing)}"
        )
    return MIXERS[arch_type]
