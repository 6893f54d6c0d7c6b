"""Sequence mixers, one a family: `arch.sublayer` says how they are called."""

from arch.families import FAMILIES
from arch.mixers.attention import Attention, attention_state
from arch.sublayer import Sublayer

MIXERS = {
    "transformer": Sublayer(Attention, attention_state),
}


def mixer_of(arch_type: str) -> Sublayer:
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
