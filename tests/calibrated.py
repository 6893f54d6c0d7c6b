"""A folder in which no device has to be measured: made-up speeds lie there."""

import json
import os
import tempfile
from pathlib import Path

import jax

from jaxnas.evaluation import calibration
from jaxnas.evaluation.rates import fitted_rates
from jaxnas.runtime import cores

MADE_UP = calibration.Calibration(rates=fitted_rates(), vmapped=False, a_step=0.03)


def keep_calibration(cache: Path) -> Path:
    """Writes the calibration files that a process with this cache may ask for.

    For 1 to 8 devices: on a CPU, the number of workers and with it the file's
    name depends on how many share the cores.
    """
    cache.mkdir(parents=True, exist_ok=True)
    platforms = {jax.default_backend(), "cpu"}
    for device in (jax.local_devices(backend=name)[0] for name in platforms):
        for workers in {1, *(max(1, cores() // number) for number in range(1, 9))}:
            _write(cache / calibration._path(device, workers).name)
    return cache


def _write(path: Path):
    """Renamed into place, under a name of its own: other test processes read it."""
    handle, beside = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(MADE_UP.to_dict(), file)
    os.replace(beside, path)
