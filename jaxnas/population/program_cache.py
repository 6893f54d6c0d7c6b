"""Compiled programs on the disk: a second run neither traces nor lowers them.

They lie beside JAX's own compilation cache, which saves what XLA does, and are
switched off and moved with it. An entry is found by all that could change the
program: its description, the shapes of its arguments, the source of this
package, versions, JAX's settings and the device. An entry is a pickle: the
folder must be one that nobody else writes to.
"""

import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
from jax.experimental import serialize_executable

import arch
from jaxnas.population.compile_stats import cache_hits_here, count_stored
from jaxnas.runtime import compiler_options
from jaxnas.storage import cache

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_FASTEST = 1  # of zlib's levels


def compiled(
    function: Callable,
    arguments: tuple,
    device: jax.Device,
    about: str,
    donated: tuple[int, ...] = (),
    quick: bool = False,
) -> jax.stages.Compiled:
    """The function compiled ahead of time for a device, from the disk if it is there.

    Args:
      function: to be jitted.
      arguments: of `jax.ShapeDtypeStruct`, on the device.
      device: where it will run.
      about: with the arguments' shapes, all that the function depends on.
      donated: places of the arguments that it may overwrite.
      quick: whether it runs for so short a time that compiling matters more.
    """
    options = compiler_options(device.platform, quick)
    path = _path(arguments, device, f"{about} {donated} {options}")
    found = None if path is None else _load(path, device)
    if found is not None:
        count_stored()
        return found
    before = cache_hits_here()
    lowered = jax.jit(function, donate_argnums=donated).lower(*arguments)
    made = lowered.compile(compiler_options=options)
    # On a CPU what came out of JAX's cache cannot be written a second time.
    if path is not None and cache_hits_here() == before:
        _store(path, made)
    return made


def _path(arguments: tuple, device: jax.Device, about: str) -> Path | None:
    settings = jax.config.values
    folder = settings["jax_compilation_cache_dir"]
    if not folder or "://" in folder or not settings["jax_enable_compilation_cache"]:
        return None
    leaves, tree = jax.tree.flatten(arguments)
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in leaves]
    words = (about, str(tree), shapes, _device(device), _machine())
    settled = [
        (name, value) for name, value in settings.items() if "_cache" not in name
    ]
    key = hashlib.sha256(repr((words, sorted(settled, key=repr))).encode())
    return Path(folder) / "jaxnas" / f"{key.hexdigest()}.pickle"


def _device(device: jax.Device) -> tuple:
    version = getattr(device.client, "platform_version", "")
    flags = os.environ.get("XLA_FLAGS", "")
    return device.device_kind, device.id, jax.device_count(), version, flags


@functools.cache
def _machine() -> str:
    """What the code is made of and made for."""
    digest = hashlib.sha256(platform.python_version().encode())
    for name in _PACKAGES:
        digest.update(importlib.metadata.version(name).encode())
    for folder in (Path(arch.__path__[0]), Path(__file__).parents[1]):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    digest.update(platform.machine().encode())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    # What the first core can do; the others are its like.
    [*flags] = [line for line in lines if line.startswith(("flags", "Features"))]
    digest.update("".join(flags[:1]).encode())
    return digest.hexdigest()


def _load(path: Path, device: jax.Device) -> jax.stages.Compiled | None:
    payload = cache.load(path)
    if payload is None:
        return None
    try:
        program, arguments, results = pickle.loads(zlib.decompress(payload))
        return serialize_executable.deserialize_and_load(
            program,
            arguments,
            results,
            backend=device.client,
            execution_devices=[device],
        )
    except Exception:  # any: an entry that cannot be read is made anew
        return None


def _store(path: Path, made: jax.stages.Compiled) -> None:
    try:
        parts = serialize_executable.serialize(made)
    except Exception:  # any: not every backend and every program can be written
        return
    cache.store(path, zlib.compress(pickle.dumps(parts), _FASTEST))
