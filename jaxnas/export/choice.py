"""Which class of `transformers` computes a model exactly."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from arch import ArchitectureConfig
from jaxnas.errors import UsageError
from jaxnas.export.decoders import ARCEE, LLAMA, QWEN2, STABLE_LM, STARCODER2
from jaxnas.export.gpt import GPT2, GPT_BIGCODE, MPT
from jaxnas.export.gpt_neox import CODEGEN, GPT_NEOX
from jaxnas.export.native import NativeClass
from jaxnas.export.recurrent import MAMBA, RWKV

CLASSES = (
    *(LLAMA, QWEN2, ARCEE, STARCODER2, STABLE_LM),
    *(GPT2, GPT_BIGCODE, GPT_NEOX, CODEGEN, MPT, MAMBA, RWKV),
)


def class_for(config: ArchitectureConfig) -> NativeClass:
    """The class that computes the config's function.

    Raises:
      UsageError: none does; the line names the fields, and what would do.
    """
    config = config.canonical()
    for native in CLASSES:
        if not native.misfits(config):
            return native
    raise UsageError(refusal(config, CLASSES, "Hugging Face class"))


def class_named(model_type: object) -> NativeClass:
    """The class with this `model_type`.

    Raises:
      UsageError: there is none that can be read.
    """
    for native in CLASSES:
        if native.model_type == model_type:
            return native
    known = ", ".join(native.model_type for native in CLASSES)
    raise UsageError(f"model_type={model_type!r} cannot be imported: only {known}")


class Implementation(Protocol):
    """What computes some of our models exactly: a class, an architecture."""

    @property
    def name(self) -> str:
        """How it is spoken of."""

    @property
    def takes(self) -> Mapping[str, tuple]:
        """Field of ours -> the values that it can have."""

    def misfits(self, config: ArchitectureConfig) -> dict[str, tuple]:
        """Fields that it has no value for -> the values that it could have."""


def refusal(
    config: ArchitectureConfig, targets: Sequence[Implementation], kind: str
) -> str:
    """Why none of the targets will do, in one line.

    Args:
      config: canonical, which misfits each of them.
      targets: all there are.
      kind: what they are called, such as "Hugging Face class".

    Returns:
      The fields that no target of the family has, and what the nearest would need.
    """
    family = [
        target for target in targets if config.arch_type in target.takes["arch_type"]
    ]
    if not family:
        names: dict[tuple, list[str]] = {}
        for target in targets:
            names.setdefault(target.takes["arch_type"], []).append(target.name)
        known = "; ".join(
            f"{', '.join(same)} for {', '.join(families)}"
            for families, same in names.items()
        )
        return f"no {kind} has arch_type={config.arch_type!r}: {known}"
    misfits = {target.name: target.misfits(config) for target in family}
    fewest = min(map(len, misfits.values()))
    nearest = {name: wrong for name, wrong in misfits.items() if len(wrong) == fewest}
    fields = [field for wrong in nearest.values() for field in wrong]
    # What none takes is to blame; otherwise it is how fields are combined.
    never = [f for f in fields if all(f in wrong for wrong in misfits.values())]
    blamed = dict.fromkeys(never or fields)
    got = ", ".join(f"{field}={_value(config, field)!r}" for field in blamed)
    advice = "; ".join(
        f"{name} with {', '.join(map(_wanted, wrong.items()))}"
        for name, wrong in nearest.items()
    )
    return (
        f"no {kind} computes this {config.arch_type} exactly: it has "
        f"{got}; exact would be {advice}"
    )


def _value(config: ArchitectureConfig, field: str) -> object:
    if field == "kv_heads":  # null means half of num_heads
        return config.key_value_heads
    return getattr(config, field)


def _wanted(misfit: tuple[str, tuple]) -> str:
    field, values = misfit
    return f"{field}={' or '.join(map(repr, values))}"
