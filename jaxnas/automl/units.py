"""Quantities as people write them: "8B", "12 ms", "24 GB"."""

import math
import re
from typing import Any

# A comma parts thousands: 1,5 and 8,1 are no numbers.
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*)"
_NUMBER = re.compile(
    rf"\s*({_WHOLE}(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*((?:[^\s0-9.,]\S*)?)\s*"
)
_MIB = 2.0**20

_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_BYTES = {
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
    "TiB": 2.0**40,
}

# What a quantity is measured in -> unit -> how many of its plain numbers it is.
UNITS: dict[str, dict[str, float]] = {
    "count": _COUNTS,
    "MiB": {unit: size / _MIB for unit, size in _BYTES.items()},
    "bytes": _BYTES,
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "GFLOP": {"MFLOP": 1e-3, "GFLOP": 1.0, "TFLOP": 1e3},
    "FLOP": {"FLOP": 1.0, "TFLOP": 1e12, "PFLOP": 1e15, "EFLOP": 1e18},
    "FLOP/s": {"GFLOP/s": 1e9, "TFLOP/s": 1e12, "PFLOP/s": 1e15},
    "bytes/s": {"MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12},
    "hours": {"h": 1.0, "hours": 1.0, "days": 24.0},
    "nats": {"nats": 1.0},
}

# Of each objective that a limit can be on.
UNIT_OF = {
    "params": "count",
    "size": "MiB",
    "flops": "GFLOP",
    "latency": "ms",
    "prefill": "ms",
    "decode": "ms",
    "memory": "MiB",
    "training_flops": "FLOP",
    "gpu_hours": "hours",
    "loss": "nats",
}


def in_plain(value: Any, measure: str) -> Any:
    """A text with its unit as a float; anything else as it is.

    Args:
      value: "24 GB", "8.1B"; or a number in `measure` already.
      measure: in UNITS.

    Raises:
      ValueError: what follows "name=value": no number, or no unit of this measure.
    """
    if not isinstance(value, str):
        return value
    units = UNITS[measure]
    known = ", ".join(unit for unit in units if unit)
    found = _NUMBER.fullmatch(value)
    if found is None:
        raise ValueError(f"is no number with a unit: use {known}")
    number, unit = found.groups()
    folded = {name.lower(): size for name, size in units.items()}
    size = units.get(unit, folded.get(unit.lower()))
    if size is None:
        raise ValueError(f"has no unit that is known here: use {known}")
    plain = float(number.replace(",", "").replace("_", "")) * size
    if not math.isfinite(plain):
        raise ValueError("must be finite")
    return plain
