"""What a run ran on: enough to know whether its results can be had again."""

import importlib.metadata
import os
import platform
from typing import Any

import jax

from jaxnas.data import Dataset

PACKAGES = (
    "jaxnas",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tokenizers",
)


def manifest_of(dataset: Dataset, seed: int, hardware: str) -> dict[str, Any]:
    """Versions, device, cores, seed and data; nothing that changes by the clock."""
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device.device_kind,
        "backend": jax.default_backend(),
        "devices": jax.local_device_count(),
        "cores": _cores(),
        "hardware_profile": hardware,
        "seed": seed,
        "data": dataset.describe(),
    }


def _cores() -> int | None:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def differences(before: dict, now: dict) -> list[str]:
    """What a resumed run finds changed, apart from the data: a phrase each."""
    return [
        f"{name} {before.get(name)!r} -> {now[name]!r}"
        for name in now
        if name != "data" and before.get(name) != now[name]
    ]
