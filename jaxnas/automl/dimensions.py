"""The dimensions of a spec: a number, a list, or a range, as ascending choices."""

import math
from collections.abc import Mapping
from typing import Any

from arch.families import USES
from jaxnas.automl.spec_checks import SpecError, check, known

MOST_CHOICES = 4096  # of one dimension
HALF = 0  # as a number of key and value heads: half of the query heads

# name -> (least, most, step) where a spec leaves a dimension out
_DIMENSIONS = {
    "hidden_size": (256, 8192, 64),
    "num_layers": (4, 64, 1),
    "num_heads": (4, 128, 1),
    "ffn_multiplier": (2.0, 8.0, 0.25),
}
# Dimensions, and the fields of a config that they set.
FIELD_OF = {
    "hidden_size": "hidden_dim",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "kv_heads": "kv_heads",
    "ffn_multiplier": "ffn_multiplier",
}
_HEAD_SIZE = [64, 96, 128]


def dimensions_of(
    given: Mapping[str, Any], family: str
) -> tuple[dict[str, tuple], tuple[int, ...]]:
    """Each dimension's choices, and those of the size of a head."""
    names = [*_DIMENSIONS, "head_size", "kv_heads"]
    known(given, names, "[dimensions]")
    used = {
        name: FIELD_OF.get(name, "num_heads") in USES[family]
        for name in names  # the size of a head comes with the heads
    }
    for name in given:
        if not used[name]:
            raise SpecError(f"dimensions.{name}: family {family} has none")
    choices: dict[str, tuple] = {}
    for name, bounds in _DIMENSIONS.items():
        if used[name]:
            whole = isinstance(bounds[0], int)
            choices[name] = _choices(name, given.get(name, {}), bounds, whole)
    if used["kv_heads"]:
        choices["kv_heads"] = _kv_heads(given.get("kv_heads", "half"))
    bounds = (_HEAD_SIZE[0], _HEAD_SIZE[-1], 1)
    sizes = _choices("head_size", given.get("head_size", _HEAD_SIZE), bounds, True)
    return choices, sizes


def _choices(name: str, given: Any, bounds: tuple, whole: bool) -> tuple:
    """A number, a list of them, or {min, max, step}."""
    where, kind = f"dimensions.{name}={given!r}", int if whole else float
    if not isinstance(given, dict):
        values = given if isinstance(given, list) else [given]
        for value in values:
            check(f"dimensions.{name}", value, kind, given, above=0)
        if not values or len(set(values)) < len(values):
            raise SpecError(f"{where} must hold distinct numbers")
        if len(values) > MOST_CHOICES:
            raise SpecError(
                f"dimensions.{name}: {len(values):,} choices, at most "
                f"{MOST_CHOICES:,} can be"
            )
        return tuple(sorted(values))
    known(given, ("min", "max", "step"), f"dimensions.{name}")
    for key, value in given.items():
        check(f"dimensions.{name}.{key}", value, kind, above=0)
    least, most, step = (
        given.get(key, default)
        for key, default in zip(("min", "max", "step"), bounds, strict=True)
    )
    if least > most:
        raise SpecError(f"{where}: min {least} is above max {most}")
    steps = (most - least) / step  # may be infinite
    if steps + 1e-9 >= MOST_CHOICES:
        many = f"{steps + 1:,.0f}" if steps < 1e15 else f"{steps:.3g}"
        raise SpecError(f"{where}: {many} choices, at most {MOST_CHOICES:,} can be")
    number = math.floor(steps + 1e-9) + 1
    values = [least + step * index for index in range(number)]
    return tuple(values) if whole else tuple(float(value) for value in values)


def _kv_heads(given: Any) -> tuple:
    values = given if isinstance(given, list) else [given]
    for value in values:
        if value != "half":
            check("dimensions.kv_heads", value, int, given, above=0)
    heads = {HALF if value == "half" else value for value in values}
    if not heads:
        raise SpecError('dimensions.kv_heads must hold numbers or "half"')
    return tuple(sorted(heads))
