"""The best candidates by the clock, beside what was predicted for them."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from arch.cost import DEVICE_KINDS, Calibrated, Hardware, decode_ms, prefill_ms
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.latency.configs import as_executed
from jaxnas.latency.measure import measure
from jaxnas.latency.store import calibration_for
from jaxnas.results.result import Result
from jaxnas.runtime import compute_dtype, cores, hardware_named
from jaxnas.storage.jsonl import Lines

PREDICTORS = {"prefill": prefill_ms, "decode": decode_ms}


def hardware_of(
    config: RunConfig,
    manifest: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Hardware:
    """Whose latency a run predicts, calibrated where that is asked for.

    A profile of another device than this process's cannot be calibrated here.

    Args:
      config: resolved.
      manifest: of a run that may have begun: what it began with stays.
      say: told if the device has to be measured.

    Raises:
      UsageError: no such hardware, or the manifest is damaged.
    """
    profile = hardware_named(config.hardware)
    if manifest is not None and manifest.exists():
        return dataclasses.replace(profile, calibrated=_calibrated_in(manifest))
    if config.latency == "estimate" or not is_here(profile):
        return profile
    found = calibration_for(jax.devices()[0], say)
    return dataclasses.replace(profile, calibrated=found)


def is_here(hardware: Hardware) -> bool:
    """True if it is the profile of this process's device.

    For a device without one, the profile that was named stands for it.
    """
    kind = jax.devices()[0].device_kind
    return DEVICE_KINDS.get(kind, hardware.name) == hardware.name


def describe_latency(name: str, hardware: Hardware) -> str:
    """What a search's latency is, for its announcement."""
    if name == "estimate":
        return f"estimate for {hardware.name}, by the roofline"
    if hardware.calibrated is None:
        return f"{name} for {hardware.name}, by the roofline: it is not this device"
    error = getattr(hardware.calibrated, name).error
    return f"{name}, calibrated on this device: median error {error:.0%}"


def measure_finalists(
    results: Sequence[Result],
    hardware: Hardware,
    timings: Lines,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Each candidate's predicted and measured milliseconds.

    What was measured stands in the timings, and is not measured again.

    Args:
      results: of the candidates.
      hardware: whose predictions stand beside; if it is not this device, nothing
        is measured.
      timings: of the run.
      say: told what is measured, and if it fails.
    """
    if not is_here(hardware):
        return []
    known = {row["latency_of"]: row["measured"] for row in timings if "measured" in row}
    configs = {result.id: result.config for result in results}
    missing = [one for one in configs if one not in known]
    if missing:
        say(f"measuring the latency of {len(missing)} of the best")
        chosen = [as_executed(configs[one]) for one in missing]
        try:
            found = measure(chosen, jax.devices()[0], compute_dtype(), cores())
        except jax.errors.JaxRuntimeError as error:  # no memory left, mostly
            say(f"it cannot be measured: {str(error).splitlines()[0]}")
            return []
        for one, measured in zip(missing, found, strict=True):
            known[one] = measured.to_dict()
            timings.append({"latency_of": one, "measured": known[one]})
    return [
        {
            "id": one,
            "predicted": {
                name: predict(config, hardware) for name, predict in PREDICTORS.items()
            },
            "measured": known[one],
        }
        for one, config in configs.items()
    ]


def _calibrated_in(manifest: Path) -> Calibrated | None:
    try:
        profile = json.loads(manifest.read_text())["decides"]["hardware_profile"]
        stored = profile["calibrated"]
        return None if stored is None else Calibrated.from_dict(stored)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{manifest} is damaged: it is no manifest") from None
