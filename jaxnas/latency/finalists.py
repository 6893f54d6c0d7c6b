"""The best candidates by the clock, beside what was predicted for them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from arch.cost import DEVICE_KINDS, Calibrated, Hardware, decode_ms, prefill_ms
from jaxnas.config import Settings
from jaxnas.errors import UsageError
from jaxnas.hardware import hardware_named
from jaxnas.latency.configs import as_executed
from jaxnas.latency.measure import Measured, measure
from jaxnas.latency.store import calibration_for
from jaxnas.results.result import Measurement, Result
from jaxnas.runtime import compute_dtype, cores
from jaxnas.storage.inputs import read_json
from jaxnas.storage.jsonl import Json, Lines

PREDICTORS = {"prefill": prefill_ms, "decode": decode_ms}


class Finalist(NamedTuple):
    """One of the best candidates by the clock."""

    id: int
    predicted: dict[str, float]  # milliseconds, by name in PREDICTORS
    measured: Measured

    def to_dict(self) -> Measurement:
        """As JSON types, as summary.json holds it."""
        return {
            "id": self.id,
            "predicted": self.predicted,
            "measured": self.measured.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Measurement) -> "Finalist":
        """The inverse of `to_dict`.

        Raises:
          KeyError, TypeError: it is not of that form.
        """
        measured = Measured.from_dict(values["measured"])
        return cls(values["id"], values["predicted"], measured)


def hardware_of(
    config: Settings,
    manifest: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Hardware:
    """The hardware that a run predicts latency for, calibrated where asked for.

    A profile of another device than this process's cannot be calibrated here.

    Args:
      config: resolved.
      manifest: of a run that may have begun: what it began with stays.
      say: told if the device has to be measured.

    Raises:
      UsageError: no such hardware, or the manifest is damaged.
    """
    if manifest is not None and manifest.exists():
        stored, calibrated = _stored_in(manifest)
        own = config.hardware == "auto" and stored.get("name") == _device_kind()
        # A device without a profile was measured when the run began.
        profile = Hardware(**stored) if own else hardware_named(config.hardware, say)
        return dataclasses.replace(profile, calibrated=calibrated)
    profile = hardware_named(config.hardware, say)
    if config.latency == "estimate" or not is_here(profile):
        return profile
    calibrated = calibration_for(jax.devices()[0], say)
    return dataclasses.replace(profile, calibrated=calibrated)


def is_here(hardware: Hardware) -> bool:
    """True if it is the profile of this process's device.

    A device without a profile is taken to have the one that was named.
    """
    return DEVICE_KINDS.get(_device_kind(), hardware.name) == hardware.name


def _device_kind() -> str:
    return jax.devices()[0].device_kind


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
) -> list[Measurement]:
    """Predicted and measured milliseconds, a `Finalist` as JSON a candidate.

    What was measured is in the timings, and is not measured again.

    Args:
      results: of the candidates.
      hardware: gives the predictions; if it is not this device, nothing is
        measured.
      timings: of the run.
      say: told what is measured, and if it fails.
    """
    if not is_here(hardware):
        return []
    known = {
        row["latency_of"]: Measured.from_dict(row["measured"])
        for row in timings
        if "measured" in row
    }
    configs = {result.id: result.config for result in results}
    missing = [number for number in configs if number not in known]
    if missing:
        say(f"measuring the latency of {len(missing)} of the best")
        chosen = [as_executed(configs[number]) for number in missing]
        try:
            measured = measure(chosen, jax.devices()[0], compute_dtype(), cores())
        except jax.errors.JaxRuntimeError as error:  # no memory left, mostly
            say(f"it cannot be measured: {str(error).splitlines()[0]}")
            return []
        for number, times in zip(missing, measured, strict=True):
            known[number] = times
            timings.append({"latency_of": number, "measured": times.to_dict()})
    finalists = [
        Finalist(
            id=number,
            predicted={
                name: predict(config, hardware) for name, predict in PREDICTORS.items()
            },
            measured=known[number],
        )
        for number, config in configs.items()
    ]
    return [finalist.to_dict() for finalist in finalists]


def _stored_in(manifest: Path) -> tuple[Json, Calibrated | None]:
    """The profile that a run began with, and what was calibrated of it."""
    try:
        profile = read_json(manifest)["decides"]["hardware_profile"]
        stored = profile["calibrated"]
        return profile, None if stored is None else Calibrated.from_dict(stored)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{manifest} is damaged: it is no manifest") from None
