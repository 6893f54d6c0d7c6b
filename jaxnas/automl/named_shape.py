"""A shape as people write it: an open model's name, a config file, or its numbers."""

from pathlib import Path
from typing import Any

from arch import ArchitectureConfig
from arch.open_models import OPEN_MODELS, open_model
from arch.published import KNOWN
from jaxnas.errors import UsageError
from jaxnas.storage.inputs import read_text

_NUMBERS = {
    "hidden": "hidden_dim",
    "layers": "num_layers",
    "heads": "num_heads",
    "kv": "kv_heads",
    "vocab": "vocab_size",
}
_WORDS = "hidden=4096,layers=32,heads=32,kv=8,ffn=3.5,vocab=128256[,tied]"


def named_shape(text: str) -> ArchitectureConfig:
    """The config of an open model, of FILE.json, or of numbers like `_WORDS`.

    Raises:
      UsageError: it is none of these, or no model can have these numbers.
    """
    if (model := open_model(text)) is not None:
        return model.config
    for name, known in KNOWN.items():
        if name.lower() == text.lower():
            return known.config
    if text.endswith(".json"):
        return _of_file(Path(text))
    if "=" in text:
        return _of_numbers(text)
    names = ", ".join(model.name for model in OPEN_MODELS)
    raise UsageError(
        f"no shape {text!r}: write {_WORDS}, FILE.json with a config, or one of {names}"
    )


def in_words(config: ArchitectureConfig) -> str:
    """4096 x 32, 32 heads of 128 (8 of keys and values), feed-forward 3.5."""
    ratio = config.inner_channels / config.hidden_dim
    return (
        f"{config.hidden_dim} x {config.num_layers}, {config.num_heads} heads of "
        f"{config.head_dim} ({config.key_value_heads} of keys and values), "
        f"feed-forward {ratio:.3g}, {config.vocab_size:,} tokens"
    )


def _of_file(path: Path) -> ArchitectureConfig:
    try:
        return ArchitectureConfig.from_json(read_text(path))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{path}: {str(error).splitlines()[0]}") from None


def _of_numbers(text: str) -> ArchitectureConfig:
    values: dict[str, Any] = {"vocab": 32_000, "ffn": 8 / 3, "tied": False}
    for word in text.split(","):
        key, equals, value = word.strip().partition("=")
        if key == "tied" and not equals:
            values["tied"] = True
            continue
        if key not in {*_NUMBERS, "ffn"}:
            raise UsageError(f"{text!r}: no {key!r} here: write {_WORDS}")
        try:
            values[key] = float(value) if key == "ffn" else int(value)
        except ValueError:
            raise UsageError(f"{text!r}: {word.strip()!r} has no number") from None
    for key in ("hidden", "layers", "heads"):
        if key not in values:
            raise UsageError(f"{text!r} lacks {key}: write {_WORDS}")
    if (most := max(abs(values[key]) for key in _NUMBERS if key in values)) > 2**30:
        raise UsageError(f"{text!r}: {most} is beyond what can be counted")
    grouped = values.get("kv", values["heads"]) != values["heads"]
    fields = {name: values[key] for key, name in _NUMBERS.items() if key in values}
    try:
        return ArchitectureConfig(
            arch_type="grouped_query_attention" if grouped else "transformer",
            ffn_multiplier=values["ffn"],
            normalization="rmsnorm",
            activation="swiglu",
            position_encoding="rope",
            tie_embeddings=values["tied"],
            **fields,
        ).canonical()
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from None
