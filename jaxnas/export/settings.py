"""Their config.json from our config, and back."""

from collections.abc import Callable, Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from arch import ArchitectureConfig
from arch.families import UNUSED
from jaxnas.errors import UsageError
from jaxnas.export.native import ANY, NativeClass
from jaxnas.storage.jsonl import Json

# Properties that fields of ours decide, and those that are fields by other names.
_PROPERTIES = (
    "key_value_heads",
    "feedforward_dim",
    "inner_channels",
    "head_dim",
    "step_rank",
    "rotary_channels",
)


def to_settings(
    native: NativeClass, config: ArchitectureConfig, ids: Mapping[str, object]
) -> Json:
    """The content of config.json.

    Args:
      native: the class.
      config: of the model, which the class takes.
      ids: of the tokens that begin and end texts, by their settings' names.
    """
    written = {
        key: value(config) if callable(value) else value
        for key, value in native.written.items()
    }
    fields = {
        field.theirs: field.export(config) for field in native.fields if field.written
    }
    settings = {
        "architectures": [native.architecture],
        "model_type": native.model_type,
        # What transformers computes in, whatever the file holds.
        "dtype": "float32",
        "torch_dtype": "float32",
        **fields,
        **native.constants,
        **written,
        **ids,
        "pad_token_id": None,  # to some classes it is an embedding to leave out
    }
    return unflatten_dict(settings, sep=".")


def from_settings(native: NativeClass, content: Json) -> ArchitectureConfig:
    """Reads a config.json of the class; dropout rates are not taken over.

    Raises:
      UsageError: settings are missing or mean what ours cannot represent; the
        line names them all.
    """
    if content.get("quantization_config"):
        raise UsageError("quantization_config: only unquantised weights can be read")
    values = native.normalise(_flat(content))

    def value_of(key: str, constant: Any = None) -> Any:
        value = values.get(key)
        if value in (None, "auto"):
            value = native.absent.get(key, constant)
        return value(values) if callable(value) else value

    reasons = [
        f"{key}={value!r}: ours has {constant!r} only"
        for key, constant in (*native.constants.items(), *native.required.items())
        if (value := value_of(key, constant)) != constant
    ]
    read = _read_fields(native, value_of, reasons)
    if reasons:
        raise UsageError("; ".join(reasons))
    config = built(native.takes, *read)
    for field in native.fields:
        if (value := value_of(field.theirs)) != (ours := field.export(config)):
            reasons.append(f"{field.theirs}={value!r}: ours would have {ours!r}")
    if reasons:
        raise UsageError("; ".join(reasons))
    return config


def _flat(content: Json) -> Json:
    """Nested settings as "outer.inner" too."""
    nested = {key: value for key, value in content.items() if isinstance(value, dict)}
    return content | flatten_dict(nested, sep=".")


def _read_fields(
    native: NativeClass, value_of: Callable[[str], Any], reasons: list[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Words and numbers, by our fields and properties; what is wrong with others."""
    words: dict[str, str] = {}
    numbers: dict[str, Any] = {}
    for field in native.fields:
        try:
            value = value_of(field.theirs)
        except (KeyError, TypeError, ZeroDivisionError):  # of what it follows from
            value = None
        said = f"{field.theirs}={value!r}"
        if value is None and field.optional:
            numbers.setdefault(field.ours, None)
        elif value is None:
            reasons.append(f"{field.theirs} is missing")
        elif field.names:
            word = next((w for w, same in field.names.items() if same == value), None)
            if word is None:
                known = ", ".join(field.names.values())
                reasons.append(f"{said}: ours has {known} only")
            else:
                words.setdefault(field.ours, word)
        elif isinstance(value, int) or (field.real and isinstance(value, float)):
            numbers.setdefault(field.ours, value)
        else:
            reasons.append(f"{said} is no {'' if field.real else 'whole '}number")
    return words, numbers


def built(
    takes: Mapping[str, tuple], words: dict[str, str], numbers: dict[str, Any]
) -> ArchitectureConfig:
    """The config with these fields and properties; others are the first taken.

    Raises:
      UsageError: there is none.
    """
    fields: dict[str, object] = {**UNUSED}
    fields |= {field: values[0] for field, values in takes.items() if values}
    if (form := words.pop("activation_form", None)) is not None:
        plain = form.removesuffix("_tanh")
        fields |= {"activation": plain, "tanh_gelu": form != plain}
    fields |= words
    fields |= {name: n for name, n in numbers.items() if name not in _PROPERTIES}
    keys = numbers.get("key_value_heads")
    grouped = fields["arch_type"] == "grouped_query_attention"
    if keys is not None and (grouped or keys != fields["num_heads"]):
        fields |= {"arch_type": "grouped_query_attention", "kv_heads": keys}
    inner = numbers.get("feedforward_dim")
    if inner is not None:
        multiplier = inner / max(1, numbers["hidden_dim"])
        fields |= {"ffn_dim": inner, "ffn_multiplier": multiplier}
    fields["rotary_dim"] = numbers.get("rotary_channels")
    fields["inner_dim"] = numbers.get("inner_channels")
    if "head_dim" in numbers and takes.get("attention_dim") == ANY:
        fields["attention_dim"] = numbers["num_heads"] * numbers["head_dim"]
    try:
        return ArchitectureConfig.from_dict(fields).canonical()
    except ValueError as error:
        raise UsageError(f"these sizes cannot be ours: {error}") from None
