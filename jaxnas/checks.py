"""Checks a value against its type and bounds: of run settings and specs."""

from collections.abc import Collection

MOST = 1e300  # that a number may be


def fault(
    value: object,
    kind: type,
    *,
    among: Collection[str] | None = None,
    ending: str | None = None,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> str | None:
    """What follows "name=value" in an error; None if nothing is wrong.

    Args:
      value: as it was given.
      kind: int, float, bool or str; an int will do for a float, as TOML writes 8
        and means 8.0. Numbers have to be finite.
      among: what is allowed,
      ending: or what ends so, the name of a file.
      least: bounds, as far as there are any: at least,
      above: more than,
      below: less than,
      most: at most.
    """
    if type(value) is not kind and (kind, type(value)) != (float, int):
        return f"is not of type {kind.__name__}"
    if among is not None and value not in among:
        allowed = f"must be one of {', '.join(among)}"
        if ending is None:
            return allowed
        if not (isinstance(value, str) and value.endswith(ending)):
            return f"{allowed}, or FILE{ending}"
    if isinstance(value, str):
        return _unwritable(value)
    if not isinstance(value, int | float):
        return None
    if not abs(value) < MOST:  # an int may be beyond every float
        return "must be finite"
    for fails, words, bound in (
        (least is not None and value < least, "at least", least),
        (above is not None and value <= above, "above", above),
        (below is not None and value >= below, "below", below),
        (most is not None and value > most, "at most", most),
    ):
        if fails:
            return f"must be {words} {bound}"
    return None


def _unwritable(text: str) -> str | None:
    """Why a text can stand in no TOML file, or name no file; None if it can."""
    if "\0" in text:
        return "must hold no NUL"
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of another encoding, as the shell gave them
        return "must be UTF-8"
    return None
