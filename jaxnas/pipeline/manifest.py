"""What a run ran on: enough to know whether its results can be had again."""

import dataclasses
import hashlib
import json
import platform
from pathlib import Path

import jax

from arch.cost import Hardware
from jaxnas.config import Settings
from jaxnas.data import Dataset
from jaxnas.errors import UsageError
from jaxnas.presets import unread_by
from jaxnas.runtime import cores
from jaxnas.storage.files import write_json
from jaxnas.storage.inputs import read_json
from jaxnas.storage.jsonl import Json
from jaxnas.version import packages

# Settings that a run may change and still be the same run.
_FREE = (
    "generations",
    "max_evals",
    "patience",
    "target",
    "top_k",
    "measure_top",
    "checkpoint_every",
    "keep_checkpoints",
    "baseline",
    "preset",
)
# Settings that say where to look; what was found there counts.
_PLACES = ("data", "hardware")


def versions() -> Json:
    """Of all that decides the last digits: packages, Python, platform, device."""
    return {
        "versions": packages(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "cores": cores(),
    }


def manifest_of(
    dataset: Dataset,
    config: Settings,
    space: Path,
    hardware: Hardware,
) -> Json:
    """Versions, device, cores, seed and data; nothing that changes by the clock.

    What must not change while a run goes on is under "decides". `space` is the file
    of a space of one's own, and is absent for others.
    """
    data = dataset.describe()
    places = (*_PLACES, "space") if space.exists() else _PLACES
    settings = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in _FREE + places
    }
    return {
        **versions(),
        "seed": config.seed,
        "data": data,
        "decides": {
            **settings,
            **({"space_hash": hash_of(space)} if space.exists() else {}),
            "backend": jax.default_backend(),
            "hardware_profile": dataclasses.asdict(hardware),
            "corpus_hash": data["corpus_hash"],
            "tokenizer_hash": data["tokenizer_hash"],
        },
    }


def hash_of(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def record_compilations(path: Path, **entry: int) -> None:
    """Adds what a generation compiled to the manifest.

    Programs are those that train and score; what XLA built, and what it found in
    its cache, counts every small operation too. A generation that runs again after
    a kill has the entry of its last run.
    """
    manifest = read_json(path)
    before = manifest.get("compilations", [])
    kept = [one for one in before if one["generation"] != entry["generation"]]
    manifest["compilations"] = [*kept, entry]
    write_json(path, manifest)


def check_manifest(path: Path, now: Json) -> list[str]:
    """Writes a new run's manifest, or compares it with the one that is there.

    Returns:
      What changed without harm beyond the last digits: a phrase each.

    Raises:
      UsageError: the file is damaged, or what decides the results changed.
    """
    if not path.exists():
        write_json(path, now)
        return []
    unread = unread_by(now["decides"]["strategy"])
    try:
        before = read_json(path)
        changed = [
            f"{name} {before['decides'].get(name)!r} -> {value!r}"
            for name, value in json.loads(json.dumps(now["decides"])).items()
            if before["decides"].get(name) != value
            # Written before 0.1.0 whatever the strategy, and read by none of these.
            and not (value is None and name in unread)
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is damaged: it is no manifest") from None
    if changed:
        raise UsageError(
            f"cannot resume: what the results depend on changed since the run "
            f"began: {'; '.join(changed)}"
        )
    names = ("versions", "python", "platform", "device", "devices", "cores")
    return [
        f"{name} {before.get(name)!r} -> {now[name]!r}"
        for name in names
        if before.get(name) != now[name]
    ]
