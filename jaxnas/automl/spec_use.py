"""How the models of a spec are trained and run: tokens, law, device, work."""

from collections.abc import Mapping
from typing import Any

from arch.cost import Hardware
from arch.scaling.laws import LAWS
from jaxnas.analytic.objectives import Use
from jaxnas.automl.spec_checks import SpecError, check, filled, known, plain
from jaxnas.errors import UsageError
from jaxnas.hardware import hardware_named

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


def use_of(values: Mapping[str, Any], context: int) -> Use:
    """What the tables `training` and `deployment` say, with their defaults.

    Raises:
      SpecError: a value that is not allowed.
    """
    given = dict(values.get("training", {}))
    if "tokens" in given:
        given["tokens"] = plain("training.tokens", given["tokens"], "count")
    training = filled(given, _TRAINING, "training")
    given = dict(values.get("deployment", {}))
    device = given.pop("hardware", _DEPLOYMENT["hardware"])
    link = given.pop("link", None)
    if link is not None:
        link = plain("deployment.link", link, "bytes/s")
    deployment = filled(given, _DEPLOYMENT, "deployment")
    check("training.law", training["law"], str, among=LAWS)
    check("training.tokens", training["tokens"], float, above=0, most=_MOST_TOKENS)
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
        check(where, given, str)
        try:
            return hardware_named(given)
        except UsageError as error:
            raise SpecError(f"{where}: {error}") from None
    known(given, ("name", *_OWN_HARDWARE), where)
    for key, (_, default) in _OWN_HARDWARE.items():
        if default is None and key not in given:
            raise SpecError(f"{where} lacks {key}: needs peak, bandwidth and memory")
    figures = {
        key: plain(f"{where}.{key}", given.get(key, default), measure)
        for key, (measure, default) in _OWN_HARDWARE.items()
    }
    check(f"{where}.name", given.get("name", ""), str)
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
