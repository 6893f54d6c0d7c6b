"""What an architect asks for: a family, its dimensions, how it is used, limits."""

import dataclasses
import math
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict

from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS, QUANTIZATIONS
from arch.cost import Hardware, parameters
from arch.families import FAMILIES, USES
from arch.open_models import OPEN_MODELS, open_model
from arch.scaling.laws import LAWS
from jaxnas.analytic.limits import Limit
from jaxnas.analytic.objectives import OBJECTIVES, Use
from jaxnas.automl.units import UNIT_OF, in_plain
from jaxnas.checks import fault
from jaxnas.errors import UsageError
from jaxnas.hardware import hardware_named

SPECS = Path(__file__).with_name("specs")

MOST_CHOICES = 4096  # of one dimension
MOST_SIZE = 2**40  # that any number of a spec's sizes may have

_MOST_FLOAT = 1e300

HALF = 0  # as a number of key and value heads: half of the query heads

# Objectives of the command line, by what is computed.
AIMS = {
    "params": "params",
    "latency": "decode",
    "performance": "loss",
    "memory": "memory",
}


class SpecError(UsageError):
    """A spec that cannot be used: what is wrong, where, and what is allowed."""


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
_TRAINING = {"tokens": 1e12, "utilization": 0.4, "law": "besiroglu2024"}
_DEPLOYMENT = {"hardware": "a100", "devices": 1, "batch": 1, "prompt": 512}
# A device of one's own: key -> what it is measured in, and its default.
_OWN_HARDWARE = {
    "peak": ("FLOP/s", None),
    "bandwidth": ("bytes/s", None),
    "memory": ("bytes", None),
    "launch": ("ms", 0.004),
}
_MOST_TOKENS = 1e18
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
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            f"cannot read {file}: {error.strerror}; "
            f"shipped are {', '.join(shipped_specs())}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{file} is not TOML: {str(error).splitlines()[0]}") from None
    try:
        return make_spec(values, file.stem)
    except SpecError as error:
        raise SpecError(f"{file}: {error}") from None


def make_spec(values: Mapping[str, Any], name: str = "spec") -> Spec:
    """A spec of what its TOML says.

    Raises:
      SpecError: as `read_spec`.
    """
    _known(values, ("name", "family", "like", *_TABLES), "the spec")
    for table in _TABLES:
        if not isinstance(values.get(table, {}), dict):
            raise SpecError(f"{table}={values[table]!r} must be a table")
    _check("name", values.get("name", name), str)
    if "like" in values:
        values = _with_start(values)
    family = values.get("family", "transformer")
    _check("family", family, str, among=FAMILIES)
    model = _filled(values.get("model", {}), _MODEL, "model")
    dimensions, head_size = _dimensions(values.get("dimensions", {}), family)
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
        use=_use(values, model["context"]),
        limits=_limits(values.get("constraints", {})),
        weights=_weights(values.get("weights", {})),
    )


def _with_start(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec, what it leaves out filled in from an open model.

    Half to twice its width and depth, its size of a head, its heads of keys and
    values, its vocabulary and activation; at most 1 % more parameters.
    """
    _check("like", values["like"], str)
    model = open_model(values["like"])
    if model is None:
        known = ", ".join(one.name for one in OPEN_MODELS)
        raise SpecError(f"like={values['like']!r} must be one of {known}")
    config = model.config
    family = values.get("family", config.arch_type)
    hidden, layers = config.hidden_dim, config.num_layers
    dimensions: dict[str, Any] = {
        "hidden_size": {"min": max(64, hidden // 128 * 64), "max": 2 * hidden},
        "num_layers": {"min": max(1, layers // 2), "max": 2 * layers},
        "num_heads": {"min": 1, "max": 4 * config.num_heads},
        "head_size": [config.head_dim],
        "kv_heads": [config.key_value_heads],
    }
    used = {
        name: value
        for name, value in dimensions.items()
        if family not in FAMILIES or FIELD_OF.get(name, "num_heads") in USES[family]
    }
    shared = {
        "vocab_size": config.vocab_size,
        "activation": config.activation,
        "tie_embeddings": config.tie_embeddings,
    }
    most = {"params": {"max": 1.01 * parameters(config)}}
    return {
        "name": f"like {model.name}",
        **values,
        "family": family,
        "dimensions": used | values.get("dimensions", {}),
        "model": shared | values.get("model", {}),
        "constraints": most | values.get("constraints", {}),
    }


def _known(values: Mapping[str, Any], names: Collection[str], where: str) -> None:
    for key in values:
        if key not in names:
            raise SpecError(
                f"unknown key {key!r} in {where}: known are {', '.join(names)}"
            )


def _filled(
    given: Mapping[str, Any], defaults: Mapping[str, Any], table: str
) -> Mapping[str, Any]:
    """The table with its defaults; each value of its default's kind."""
    _known(given, tuple(defaults), f"[{table}]")
    for key, value in given.items():
        kind = type(defaults[key])
        bounds = {"above": 0} if kind in (int, float) else {}
        _check(f"{table}.{key}", value, kind, among=_AMONG.get(key), **bounds)
    return {**defaults, **given}


def _plain(name: str, value: Any, measure: str) -> float:
    """A number above 0, or a text with a unit, in plain numbers of the measure."""
    try:
        number = in_plain(value, measure)
    except ValueError as error:
        raise SpecError(f"{name}={value!r} {error}") from None
    _check(name, number, float, value, above=0)
    return float(number)


def _check(name: str, value: Any, kind: type, given: Any = None, **bounds: Any) -> None:
    """Refuses a value, or the one that was `given`, of which it is a part."""
    if kind is int and type(value) is int and abs(value) > MOST_SIZE:
        raise SpecError(f"{name} must be at most {MOST_SIZE:,}")
    if type(value) is int and abs(value) > _MOST_FLOAT:
        raise SpecError(f"{name} must be at most {_MOST_FLOAT:.0e}")
    if (wrong := fault(value, kind, **bounds)) is not None:
        raise SpecError(f"{name}={(value if given is None else given)!r} {wrong}")


def _use(values: Mapping[str, Any], context: int) -> Use:
    given = dict(values.get("training", {}))
    if "tokens" in given:
        given["tokens"] = _plain("training.tokens", given["tokens"], "count")
    training = _filled(given, _TRAINING, "training")
    given = dict(values.get("deployment", {}))
    device = given.pop("hardware", _DEPLOYMENT["hardware"])
    link = given.pop("link", None)
    if link is not None:
        link = _plain("deployment.link", link, "bytes/s")
    deployment = _filled(given, _DEPLOYMENT, "deployment")
    _check("training.law", training["law"], str, among=LAWS)
    _check("training.tokens", training["tokens"], float, above=0, most=_MOST_TOKENS)
    try:
        return Use(
            hardware=_hardware(device),
            devices=deployment["devices"],
            link=link,
            batch=deployment["batch"],
            prompt=deployment["prompt"],
            context=context,
            training_tokens=float(training["tokens"]),
            utilization=training["utilization"],
            law=LAWS[training["law"]],
            shape=True,
        )
    except ValueError as error:
        raise SpecError(str(error)) from None


def _hardware(given: Any) -> Hardware:
    """A profile by name, or a device of one's own: peak, bandwidth and memory."""
    where = "deployment.hardware"
    if not isinstance(given, dict):
        _check(where, given, str)
        try:
            return hardware_named(given)
        except UsageError as error:
            raise SpecError(f"{where}: {error}") from None
    _known(given, ("name", *_OWN_HARDWARE), where)
    for key, (_, default) in _OWN_HARDWARE.items():
        if default is None and key not in given:
            raise SpecError(f"{where} lacks {key}: needs peak, bandwidth and memory")
    figures = {
        key: _plain(f"{where}.{key}", given.get(key, default), measure)
        for key, (measure, default) in _OWN_HARDWARE.items()
    }
    _check(f"{where}.name", given.get("name", ""), str)
    source = "the spec"
    return Hardware(
        name=" ".join(given.get("name", "own").split()) or "own",
        peak_flops=figures["peak"],
        bandwidth=figures["bandwidth"],
        memory_bytes=int(figures["memory"]),
        launch_seconds=figures["launch"] / 1e3,
        value_bytes=2,
        peak_source=source,
        bandwidth_source=source,
        launch_source=source if "launch" in given else "assumed",
        memory_source=source,
    )


def _dimensions(
    given: Mapping[str, Any], family: str
) -> tuple[dict[str, tuple], tuple[int, ...]]:
    """Each dimension's choices, and those of the size of a head."""
    names = [*_DIMENSIONS, "head_size", "kv_heads"]
    _known(given, names, "[dimensions]")
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
            _check(f"dimensions.{name}", value, kind, given, above=0)
        if not values or len(set(values)) < len(values):
            raise SpecError(f"{where} must hold distinct numbers")
        if len(values) > MOST_CHOICES:
            raise SpecError(
                f"dimensions.{name}: {len(values):,} choices, at most "
                f"{MOST_CHOICES:,} can be"
            )
        return tuple(sorted(values))
    _known(given, ("min", "max", "step"), f"dimensions.{name}")
    for key, value in given.items():
        _check(f"dimensions.{name}.{key}", value, kind, above=0)
    least, most, step = (
        given.get(key, default)
        for key, default in zip(("min", "max", "step"), bounds, strict=True)
    )
    if least > most:
        raise SpecError(f"{where}: min {least} is above max {most}")
    number = math.floor((most - least) / step + 1e-9) + 1
    if number > MOST_CHOICES:
        raise SpecError(f"{where}: {number:,} choices, at most {MOST_CHOICES:,} can be")
    values = [least + step * index for index in range(number)]
    return tuple(values) if whole else tuple(float(value) for value in values)


def _kv_heads(given: Any) -> tuple:
    values = given if isinstance(given, list) else [given]
    for value in values:
        if value != "half":
            _check("dimensions.kv_heads", value, int, given, above=0)
    heads = {HALF if value == "half" else value for value in values}
    if not heads:
        raise SpecError('dimensions.kv_heads must hold numbers or "half"')
    return tuple(sorted(heads))


def _limits(given: Mapping[str, Any]) -> tuple[Limit, ...]:
    _known(given, tuple(OBJECTIVES), "[constraints]")
    limits = []
    for name, bounds in given.items():
        where = f"constraints.{name}"
        if not isinstance(bounds, dict) or not bounds:
            raise SpecError(f"{where}={bounds!r} must be a table with min or max")
        _known(bounds, ("min", "max"), where)
        ends = {
            key: _plain(f"{where}.{key}", value, UNIT_OF[name])
            for key, value in bounds.items()
        }
        limit = Limit(name, ends.get("min", -math.inf), ends.get("max", math.inf))
        if limit.least > limit.most:
            raise SpecError(f"{where}: min {limit.least:g} is above max {limit.most:g}")
        limits.append(limit)
    return tuple(limits)


def _weights(given: Mapping[str, Any]) -> dict[str, float]:
    _known(given, tuple(AIMS), "[weights]")
    for name, value in given.items():
        _check(f"weights.{name}", value, float, least=0)
    return _WEIGHTS | {name: float(value) for name, value in given.items()}
