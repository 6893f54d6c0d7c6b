"""Which class of `transformers` computes a model exactly."""

from arch import ArchitectureConfig
from jaxnas.errors import UsageError
from jaxnas.export.decoders import ARCEE, LLAMA, STABLE_LM, STARCODER2
from jaxnas.export.gpt import GPT2, MPT
from jaxnas.export.native import NativeClass
from jaxnas.export.recurrent import MAMBA, RWKV

CLASSES = (LLAMA, ARCEE, STARCODER2, STABLE_LM, GPT2, MPT, MAMBA, RWKV)


def class_for(config: ArchitectureConfig) -> NativeClass:
    """The class that computes the config's function.

    Raises:
      UsageError: none does; the line names the fields, and what would do.
    """
    config = config.canonical()
    for native in CLASSES:
        if not native.misfits(config):
            return native
    raise UsageError(_reason(config))


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


def _reason(config: ArchitectureConfig) -> str:
    """Which fields no class has, and the nearest classes."""
    family = [
        native for native in CLASSES if config.arch_type in native.takes["arch_type"]
    ]
    if not family:
        known = "; ".join(
            f"{native.name} for {', '.join(native.takes['arch_type'])}"
            for native in CLASSES
        )
        return f"no Hugging Face class has arch_type={config.arch_type!r}: {known}"
    misfits = {native.name: native.misfits(config) for native in family}
    fewest = min(map(len, misfits.values()))
    nearest = {name: wrong for name, wrong in misfits.items() if len(wrong) == fewest}
    fields = [field for wrong in nearest.values() for field in wrong]
    # What no class takes is to blame; otherwise it is how fields are combined.
    never = [f for f in fields if all(f in wrong for wrong in misfits.values())]
    blamed = dict.fromkeys(never or fields)
    got = ", ".join(f"{field}={_value(config, field)!r}" for field in blamed)
    advice = "; ".join(
        f"{name} with {', '.join(map(_wanted, wrong.items()))}"
        for name, wrong in nearest.items()
    )
    return (
        f"no Hugging Face class computes this {config.arch_type} exactly: it has "
        f"{got}; exact would be {advice}"
    )


def _value(config: ArchitectureConfig, field: str) -> object:
    if field == "kv_heads":  # null means half of num_heads
        return config.key_value_heads
    return getattr(config, field)


def _wanted(misfit: tuple[str, tuple]) -> str:
    field, values = misfit
    return f"{field}={' or '.join(map(repr, values))}"
