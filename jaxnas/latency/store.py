"""A device's latency calibration: measured once, and kept.

Kept by device, cores, version of jax and what is computed in; a search's results
depend on it, so that it is never measured again by itself.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import jax

from arch.cost import Calibrated
from arch.cost.calibrated import TERMS
from jaxnas.latency.configs import draw_configs
from jaxnas.latency.fit import fit
from jaxnas.latency.measure import measure
from jaxnas.runtime import compute_dtype, cores, processor
from jaxnas.storage.cache import in_cache, keep, recall

MODELS = 30  # that a calibration measures


def calibration_for(
    device: jax.Device, say: Callable[[str], None] = lambda text: None
) -> Calibrated:
    """The device's calibration: read, or measured and kept.

    Args:
      device: to run on.
      say: told, in a line, that it is being measured.
    """
    stored = read_calibration(device)
    if stored is not None:
        return stored
    say(
        f"measuring the latency of {MODELS} small models on {device.device_kind}, "
        f"once: some minutes"
    )
    configs = draw_configs(0, MODELS)
    calibrated = fit(configs, measure(configs, device, compute_dtype(), cores()))
    keep_calibration(device, calibrated)
    return calibrated


def read_calibration(device: jax.Device) -> Calibrated | None:
    """What was kept for the device; None if nothing was, or it is damaged."""
    return recall(
        path_of(device), lambda stored: Calibrated.from_dict(stored["calibrated"])
    )


def keep_calibration(
    device: jax.Device, calibrated: Calibrated, **more: object
) -> bool:
    """Keeps it for later runs, `more` beside it; False if the cache refuses."""
    about = {"calibrated": dataclasses.asdict(calibrated), "about": about_of(device)}
    return keep(path_of(device), about | more)


def about_of(device: jax.Device) -> dict[str, str | int]:
    """What a calibration depends on."""
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "processor": processor(),
        "cores": cores(),
        "jax": jax.__version__,
        "dtype": str(compute_dtype()),
    }


def path_of(device: jax.Device) -> Path | None:
    """Where the device's calibration is kept; None without a cache."""
    return in_cache(file_name(device))


def file_name(device: jax.Device) -> str:
    """Of the device's calibration."""
    about = json.dumps([about_of(device), TERMS])
    name = hashlib.sha256(about.encode()).hexdigest()[:12]
    return f"latency-{device.platform}-{name}.json"
