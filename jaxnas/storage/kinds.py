"""Whether a JSON value is what a type says, and if not, where it is not.

Types of what is kept in files are written once, as dataclasses, NamedTuples and
TypedDicts, and what is read back is held against them.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import (
    Any,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from jaxnas.checks import fault
from jaxnas.errors import UsageError
from jaxnas.storage.inputs import read_json


class _Part(NamedTuple):
    """Of a value: its place in it, what is there, and of which kind it has to be."""

    place: str
    value: object
    kind: Any


class _Fields(NamedTuple):
    """Of a class: kinds by name, names that must be there, whether others may."""

    kinds: dict[str, Any]
    needed: tuple[str, ...]
    open: bool


# Kinds that nothing is of.
_MISSING, _UNKNOWN = object(), object()


def misfit(value: object, kind: Any, name: str = "") -> str | None:
    """Says where a value is not of a kind; None if it is.

    Args:
      value: of JSON types.
      kind: bool, int, float, str, None, Any; list, tuple, dict and union of kinds;
        a dataclass, a NamedTuple, a TypedDict: an object with its fields, of a
        NamedTuple a list of them, too. Numbers have to be finite. Keys that a
        TypedDict does not have are let pass.
      name: of the value.
    """
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        if value is None and len(kinds) < len(get_args(kind)):
            return None
        reasons = [misfit(value, one, name) for one in kinds]
        return None if None in reasons else reasons[0]
    parts = _parts(value, kind)
    if parts is None:
        reason = _wrong(value, kind)
        return reason and f"{name or 'it'} {reason}"
    for place, one, own in parts:
        where = f"{name}{place}".lstrip(".")[:200]
        if own is _MISSING or own is _UNKNOWN:
            return f"{where} is {'missing' if own is _MISSING else 'unknown'}"
        if (wrong := misfit(one, own, where)) is not None:
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


def _parts(value: Any, kind: Any) -> Iterator[_Part] | None:
    """What a value of this kind holds; None if the kind holds nothing."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        if origin is list or arguments[1:] == (...,):
            return _in_turn(value, [arguments[0]] * len(value))
        return _in_turn(value, arguments) if len(value) == len(arguments) else None
    if origin is dict and isinstance(value, dict):
        return (_Part(f".{key}", one, arguments[1]) for key, one in value.items())
    fields = None if origin is not None else _fields(kind)
    if fields is None:
        return None
    if isinstance(value, dict):
        return _of_fields(value, fields)
    own = [fields.kinds[name] for name in getattr(kind, "_fields", ())]
    there = isinstance(value, list) and len(value) == len(own) > 0
    return _in_turn(value, own) if there else None


def _in_turn(values: Sequence[object], kinds: Sequence[Any]) -> Iterator[_Part]:
    for at, (one, kind) in enumerate(zip(values, kinds, strict=True)):
        yield _Part(f"[{at}]", one, kind)


def _of_fields(value: dict[str, object], fields: _Fields) -> Iterator[_Part]:
    for key in fields.needed:
        if key not in value:
            yield _Part(f".{key}", None, _MISSING)
    for key, one in value.items():
        if key in fields.kinds or not fields.open:
            yield _Part(f".{key}", one, fields.kinds.get(key, _UNKNOWN))


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


def _wrong(value: object, kind: Any) -> str | None:
    """Why a value is not of a kind that holds nothing, or holds nothing of one."""
    origin = get_origin(kind)
    if kind is Any or kind is object:
        return None
    if origin in (list, tuple):
        return "is no list of its length" if origin is tuple else "is no list"
    if origin is dict or kind is dict or _fields(kind) is not None:
        return None if kind is dict and isinstance(value, dict) else "is no JSON object"
    if kind is float and type(value) is float:  # as large as they come
        return None if math.isfinite(value) else "must be finite"
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
