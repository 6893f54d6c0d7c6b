"""Whether a JSON value is what a type says, and if not, where it is not.

Types of what is kept in files are written once, as dataclasses, NamedTuples and
TypedDicts, and what is read back is held against them.
"""

import dataclasses
import functools
import types
from collections.abc import Iterator
from pathlib import Path
from typing import (
    Any,
    NamedTuple,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from jaxnas.checks import fault
from jaxnas.errors import UsageError
from jaxnas.storage.inputs import read_json


def misfit(value: object, kind: Any, name: str = "") -> str | None:
    """Says where a value is not of a kind; None if it is.

    Args:
      value: of JSON types.
      kind: bool, int, float, str, None, Any; list, tuple, dict and union of kinds;
        a dataclass, a NamedTuple, a TypedDict: an object with its fields. Numbers
        have to be finite. Keys that a TypedDict does not have are let pass.
      name: of the value.
    """
    origin = get_origin(kind)
    if kind is Any or kind is object:
        return None
    if kind is None or kind is type(None):
        return None if value is None else f"{name or 'it'} is not null"
    if origin in (Union, types.UnionType):
        return _of_none(value, get_args(kind), name)
    if origin is NotRequired:
        return misfit(value, get_args(kind)[0], name)
    parts = _parts(value, kind, origin)
    if parts is None:
        reason = _wrong(value, kind, origin)
        return reason and f"{name or 'it'} {reason}"
    for key, one, own in parts:
        place = f"{name}[{key}]" if isinstance(key, int) else f"{name}.{key}"
        if own is _MISSING:
            return f"{place.lstrip('.')} is missing"
        if own is _UNKNOWN:
            return f"{place.lstrip('.')[:80]} is unknown"
        if (wrong := misfit(one, own, place.lstrip("."))) is not None:
            return wrong
    return None


def read_kept(path: Path, kind: Any) -> Any:
    """The value of a JSON file that a run keeps, of that kind.

    Raises:
      UsageError: it cannot be read, or is of another kind: where.
    """
    value = read_json(path)
    if (wrong := misfit(value, kind)) is not None:
        raise UsageError(f"{path} is damaged: {wrong}")
    return value


_MISSING, _UNKNOWN = object(), object()


def _of_none(value: object, kinds: tuple[Any, ...], name: str) -> str | None:
    reasons = [misfit(value, kind, name) for kind in kinds]
    if None in reasons:
        return None
    return next(
        (
            reason
            for kind, reason in zip(kinds, reasons, strict=True)
            if kind is not type(None)
        ),
        None,
    )


def _parts(value: Any, kind: Any, origin: Any) -> Iterator[tuple] | None:
    """What a value holds, each with its key and kind; None if it holds nothing."""
    if origin in (list, tuple) and isinstance(value, list | tuple):
        own = get_args(kind)
        if origin is list or own[1:] == (...,):
            return ((at, one, own[0]) for at, one in enumerate(value))
        if len(value) == len(own):
            pairs = enumerate(zip(value, own, strict=True))
            return ((at, one, each) for at, (one, each) in pairs)
    if origin is dict and isinstance(value, dict):
        return ((key, one, get_args(kind)[1]) for key, one in value.items())
    if origin is None and isinstance(value, dict):
        fields = _fields(kind)
        return None if fields is None else _of_fields(value, fields)
    return None


class _Fields(NamedTuple):
    """Of a class: kinds by name, names that must be there, whether others may."""

    kinds: dict[str, Any]
    needed: tuple[str, ...]
    open: bool


def _of_fields(value: dict, fields: _Fields) -> Iterator[tuple]:
    kinds, needed, open_ = fields
    for key in needed:
        if key not in value:
            yield key, None, _MISSING
    for key, one in value.items():
        if key in kinds or not open_:
            yield key, one, kinds.get(key, _UNKNOWN)


@functools.cache
def _fields(kind: Any) -> _Fields | None:
    if not isinstance(kind, type):
        return None
    if (needed := getattr(kind, "__required_keys__", None)) is not None:
        return _Fields(get_type_hints(kind), tuple(sorted(needed)), True)
    if dataclasses.is_dataclass(kind):
        names = [
            field.name
            for field in dataclasses.fields(kind)
            if field.default is field.default_factory is dataclasses.MISSING
        ]
        return _Fields(get_type_hints(kind), tuple(names), False)
    fields: tuple[str, ...] = getattr(kind, "_fields", ())  # of a NamedTuple
    defaults = getattr(kind, "_field_defaults", {})
    needed = tuple(name for name in fields if name not in defaults)
    return _Fields(get_type_hints(kind), needed, False) if fields else None


def _wrong(value: object, kind: Any, origin: Any) -> str | None:
    if origin in (list, tuple):
        return "is no list of its length" if origin is tuple else "is no list"
    if origin is dict or kind is dict or _fields(kind) is not None:
        return None if kind is dict and isinstance(value, dict) else "is no JSON object"
    return _no_text(value) if kind is str else fault(value, kind)


def _no_text(value: object) -> str | None:
    """A model may write any character, but half of a surrogate pair is none."""
    if not isinstance(value, str):
        return "is not of type str"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is no Unicode text"
    return None
