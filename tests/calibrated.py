"""A folder in which no device has to be measured: made-up speeds lie there."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path

import jax

from arch.cost import Calibrated, Fit
from jaxnas.latency import store

_RATES = {
    "call": 1e-4,
    "uncached bytes": 3e-11,
    "matmul launches": 2e-6,
    "matmul flops": 1e-11,
    "matmul bytes": 5e-11,
    "attention launches": 3e-6,
    "attention flops": 2e-11,
    "elementwise bytes": 1e-10,
    "scan launches": 2e-5,
    "wkv launches": 2e-6,
    "step bytes": 2e-10,
    "states launches": 1e-5,
}
LATENCY = Calibrated(
    prefill=Fit(rates=_RATES, cache_bytes=0, error=0.05),
    decode=Fit(rates=_RATES, cache_bytes=100_000, error=0.06),
)


def keep_calibration(cache: Path) -> Path:
    """Writes the calibration files that a process with this cache may ask for."""
    cache.mkdir(0o700, parents=True, exist_ok=True)
    platforms = {jax.default_backend(), "cpu"}
    for device in (jax.local_devices(backend=name)[0] for name in platforms):
        _write(
            cache / store.file_name(device),
            {"calibrated": dataclasses.asdict(LATENCY)},
        )
    return cache


def _write(path: Path, value: dict):
    """Renamed into place, under a name of its own: other test processes read it."""
    handle, beside = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(value, file)
    os.replace(beside, path)
