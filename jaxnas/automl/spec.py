"""What an architect asks for: a family, its dimensions, how it is used, limits."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS, QUANTIZATIONS
from arch.families import FAMILIES
from jaxnas.analytic.limits import Limit
from jaxnas.analytic.objectives import OBJECTIVES, Use
from jaxnas.automl.dimensions import dimensions_of
from jaxnas.automl.spec_checks import SpecError, check, filled, known, plain
from jaxnas.automl.spec_use import use_of
from jaxnas.automl.start import with_start
from jaxnas.automl.units import UNIT_OF
from jaxnas.errors import UsageError
from jaxnas.storage.inputs import read_toml

SPECS = Path(__file__).with_name("specs")

# Objectives of the command line, by what is computed.
AIMS = {
    "params": "params",
    "latency": "decode",
    "performance": "loss",
    "memory": "memory",
}


class ModelFields(TypedDict):
    """Fields that the configs of a search share."""

    vocab_size: int
    max_seq_length: int
    activation: str
    normalization: str
    position_encoding: str
    tie_embeddings: bool
    quantization: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """One search among the shapes of a family.

    Attributes:
      name: for tables and files.
      family: one of FAMILIES.
      dimensions: name -> its choices, ascending.
      head_size: channels that a head may have, ascending.
      model: fields of every config.
      use: see `Use`.
      limits: on names in OBJECTIVES.
      weights: name in AIMS -> weight in the score.
    """

    name: str
    family: str
    dimensions: dict[str, tuple]
    head_size: tuple[int, ...]
    model: ModelFields
    use: Use
    limits: tuple[Limit, ...]
    weights: dict[str, float]


_WEIGHTS = {"params": 0.05, "latency": 0.1, "performance": 1.0, "memory": 0.05}

_MODEL = {
    "vocab_size": 32_000,
    "context": 2048,
    "activation": "swiglu",
    "normalization": "rmsnorm",
    "position_encoding": "rope",
    "tie_embeddings": False,
    "precision": "fp16",
}
_AMONG = {
    "activation": ACTIVATIONS,
    "normalization": NORMALIZATIONS,
    "position_encoding": POSITION_ENCODINGS,
    "precision": QUANTIZATIONS,
}
_TABLES = ("dimensions", "model", "training", "deployment", "constraints", "weights")


def shipped_specs() -> list[str]:
    """Names of the example specs."""
    return sorted(path.stem for path in SPECS.glob("*.toml"))


def read_spec(path: str) -> Spec:
    """A spec of a TOML file, or one that is shipped, by its name.

    Raises:
      SpecError: one line with what is wrong, where, and what is allowed.
    """
    file = Path(path)
    if path in shipped_specs():
        file = SPECS / f"{path}.toml"
    try:
        values = read_toml(file)
    except UsageError as error:
        shipped = "" if file.exists() else f"; shipped are {', '.join(shipped_specs())}"
        raise SpecError(f"{error}{shipped}") from None
    try:
        return make_spec(values, file.stem)
    except SpecError as error:
        raise SpecError(f"{file}: {error}") from None


def make_spec(values: Mapping[str, Any], name: str = "spec") -> Spec:
    """A spec of what its TOML says.

    Raises:
      SpecError: as `read_spec`.
    """
    known(values, ("name", "family", "like", *_TABLES), "the spec")
    for table in _TABLES:
        if not isinstance(values.get(table, {}), dict):
            raise SpecError(f"{table}={values[table]!r} must be a table")
    check("name", values.get("name", name), str)
    if "like" in values:
        values = with_start(values)
    family = values.get("family", "transformer")
    check("family", family, str, among=FAMILIES)
    model = filled(values.get("model", {}), _MODEL, "model", _AMONG)
    dimensions, head_size = dimensions_of(values.get("dimensions", {}), family)
    return Spec(
        name=" ".join(values.get("name", name).split()),
        family=family,
        dimensions=dimensions,
        head_size=head_size,
        model={
            "vocab_size": model["vocab_size"],
            "max_seq_length": model["context"],
            "activation": model["activation"],
            "normalization": model["normalization"],
            "position_encoding": model["position_encoding"],
            "tie_embeddings": model["tie_embeddings"],
            "quantization": model["precision"],
        },
        use=use_of(values, model["context"]),
        limits=_limits(values.get("constraints", {})),
        weights=_weights(values.get("weights", {})),
    )


def _limits(given: Mapping[str, Any]) -> tuple[Limit, ...]:
    known(given, tuple(OBJECTIVES), "[constraints]")
    limits = []
    for name, bounds in given.items():
        where = f"constraints.{name}"
        if not isinstance(bounds, dict) or not bounds:
            raise SpecError(f"{where}={bounds!r} must be a table with min or max")
        known(bounds, ("min", "max"), where)
        ends = {
            key: plain(f"{where}.{key}", value, UNIT_OF[name])
            for key, value in bounds.items()
        }
        limit = Limit(name, ends.get("min", -math.inf), ends.get("max", math.inf))
        if limit.least > limit.most:
            raise SpecError(f"{where}: min {limit.least:g} is above max {limit.most:g}")
        limits.append(limit)
    return tuple(limits)


def _weights(given: Mapping[str, Any]) -> dict[str, float]:
    known(given, tuple(AIMS), "[weights]")
    for name, value in given.items():
        check(f"weights.{name}", value, float, least=0)
    return _WEIGHTS | {name: float(value) for name, value in given.items()}
