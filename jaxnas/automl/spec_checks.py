"""Checks of a spec's values: one line with what is wrong, where, what is allowed."""

from collections.abc import Collection, Mapping
from typing import Any

from jaxnas.automl.units import in_plain
from jaxnas.checks import fault
from jaxnas.errors import UsageError

MOST_SIZE = 2**40  # that any number of a spec's sizes may have
_MOST_FLOAT = 1e300


class SpecError(UsageError):
    """A spec that cannot be used: what is wrong, where, and what is allowed."""


def known(values: Mapping[str, Any], names: Collection[str], where: str) -> None:
    """Refuses a key that is not among the names."""
    for key in values:
        if key not in names:
            raise SpecError(
                f"unknown key {key!r} in {where}: known are {', '.join(names)}"
            )


def filled(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    table: str,
    among: Mapping[str, Collection[str]] | None = None,
) -> Mapping[str, Any]:
    """The table with its defaults; each value of its default's kind.

    Args:
      given: the table.
      defaults: of every key.
      table: its name.
      among: key -> what is allowed.

    Raises:
      SpecError: an unknown key, or a value that is not allowed.
    """
    known(given, tuple(defaults), f"[{table}]")
    for key, value in given.items():
        kind = type(defaults[key])
        bounds = {"above": 0} if kind in (int, float) else {}
        check(f"{table}.{key}", value, kind, among=(among or {}).get(key), **bounds)
    return {**defaults, **given}


def plain(name: str, value: Any, measure: str) -> float:
    """A number above 0, or a text with a unit, in plain numbers of the measure."""
    try:
        number = in_plain(value, measure)
    except ValueError as error:
        raise SpecError(f"{name}={value!r} {error}") from None
    check(name, number, float, value, above=0)
    return float(number)


def check(name: str, value: Any, kind: type, given: Any = None, **bounds: Any) -> None:
    """Refuses a value, or the one that was `given`, of which it is a part."""
    if kind is int and type(value) is int and abs(value) > MOST_SIZE:
        raise SpecError(f"{name} must be at most {MOST_SIZE:,}")
    if type(value) is int and abs(value) > _MOST_FLOAT:
        raise SpecError(f"{name} must be at most {_MOST_FLOAT:.0e}")
    if (wrong := fault(value, kind, **bounds)) is not None:
        raise SpecError(f"{name}={(value if given is None else given)!r} {wrong}")
