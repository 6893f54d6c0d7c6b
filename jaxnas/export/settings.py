"""Their config.json from our config, and back."""

from collections.abc import Callable, Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from arch import ArchitectureConfig
from arch.families import UNUSED
from jaxnas.errors import UsageError
from jaxnas.export.native import NativeClass


def to_settings(
    native: NativeClass, config: ArchitectureConfig, ids: dict[str, Any]
) -> dict[str, Any]:
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
    fields = {field.theirs: field.export(config) for field in native.fields}
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


def from_settings(native: NativeClass, content: dict[str, Any]) -> ArchitectureConfig:
    """Reads a config.json of the class; dropout rates are not taken over.

    Raises:
      UsageError: a setting is missing or means what ours cannot represent; the
        line names it.
    """
    if content.get("quantization_config"):
        raise UsageError("quantization_config: only unquantised weights can be read")
    values = native.normalise(_flat(content))

    def value_of(key: str, constant: Any = None) -> Any:
        value = values.get(key)
        if value in (None, "auto"):
            value = native.absent.get(key, constant)
        return value(values) if callable(value) else value

    for key, constant in (*native.constants.items(), *native.required.items()):
        if (value := value_of(key, constant)) != constant:
            raise UsageError(f"{key}={value!r}: ours has {constant!r} only")
    config = _built(native, _read_fields(native, value_of))
    for field in native.fields:
        if value_of(field.theirs) != (ours := field.export(config)):
            raise UsageError(
                f"{field.theirs}={value_of(field.theirs)!r}: ours would have {ours!r}"
            )
    return config


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """Nested settings as "outer.inner" too."""
    nested = {key: value for key, value in content.items() if isinstance(value, dict)}
    return content | flatten_dict(nested, sep=".")


def _read_fields(native: NativeClass, value_of: Callable[[str], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in native.fields:
        try:
            value = value_of(field.theirs)
        except (KeyError, TypeError, ZeroDivisionError):  # of what it follows from
            value = None
        if value is None:
            raise UsageError(f"{field.theirs} is missing")
        if field.names:
            value = _our_word(field.theirs, value, field.names)
        elif not isinstance(value, int):
            raise UsageError(f"{field.theirs}={value!r} is no whole number")
        found.setdefault(field.ours, value)
    return found


def _our_word(key: str, value: Any, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if theirs == value:
            return ours
    raise UsageError(f"{key}={value!r}: ours has {', '.join(names.values())} only")


def _built(native: NativeClass, found: dict[str, Any]) -> ArchitectureConfig:
    """The config with these fields and properties."""
    first = {field: values[0] for field, values in native.takes.items()}
    found = UNUSED | first | found
    if (keys := found.pop("key_value_heads", None)) not in (None, found["num_heads"]):
        found |= {"arch_type": "grouped_query_attention", "kv_heads": keys}
    if (inner := found.pop("feedforward_dim", None)) is not None:
        multiplier = inner / max(1, found["hidden_dim"])
        found |= {"ffn_dim": inner, "ffn_multiplier": multiplier}
    found["inner_dim"] = found.pop("inner_channels", None)
    for derived in ("head_dim", "step_rank"):
        found.pop(derived, None)
    try:
        return ArchitectureConfig(**found).canonical()
    except ValueError as error:
        raise UsageError(f"these sizes cannot be ours: {error}") from None
