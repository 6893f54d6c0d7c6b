"""The profile of a device: named, known by its kind, or measured once and kept."""

import dataclasses
import hashlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from arch.cost import DEVICE_KINDS, Hardware, hardware_for
from jaxnas.errors import UsageError
from jaxnas.hardware_profiles import PROFILES
from jaxnas.storage.cache import in_cache, keep, recall
from jaxnas.storage.jsonl import Json

MATRIX = 4096  # rows of the square matrices that a peak is measured with
ARRAY_MIB = 256  # that a bandwidth is measured with
_REPEATS, _PRODUCTS = 5, 8


def hardware_named(
    name: str, say: Callable[[str], None] = lambda text: None
) -> Hardware:
    """A profile by name; "auto" is that of this process's device.

    Args:
      name: in PROFILES, or "auto".
      say: told, in a line, if the device has no profile and is measured.

    Raises:
      UsageError: there is none of this name.
    """
    if name == "auto":
        device = jax.devices()[0]
        known = device.device_kind in DEVICE_KINDS
        return hardware_for(device.device_kind) if known else measured(device, say)
    if name not in PROFILES:
        raise UsageError(f"no hardware {name!r}: choose auto, {', '.join(PROFILES)}")
    return PROFILES[name]


def measured(
    device: jax.Device,
    say: Callable[[str], None] = lambda text: None,
    matrix: int = MATRIX,
    array_mib: int = ARRAY_MIB,
) -> Hardware:
    """The profile of a device that has none: peak and bandwidth by the clock.

    Measured once and kept. A device that cannot be measured, because its memory is
    taken, has the figures of the nearest profile.

    Args:
      device: to measure.
      say: told in a line what is done.
      matrix: rows and columns of what is multiplied, in bfloat16.
      array_mib: of what is copied.
    """
    nearest = hardware_for(device.device_kind, _capability(device))
    about = f"{device.device_kind} {jax.__version__} {matrix} {array_mib}"
    name = hashlib.sha256(about.encode()).hexdigest()[:12]
    path = in_cache(f"hardware-{device.platform}-{name}.json")
    kept = recall(path, _figures)
    if kept is None:
        say(
            f"no profile of {device.device_kind}: "
            "measuring its peak and bandwidth, once"
        )
        try:
            kept = _peak_flops(device, matrix), _bandwidth(device, array_mib)
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).splitlines()[0]
            say(f"it cannot be measured ({reason}): {nearest.peak_source}")
            return nearest
        keep(path, {"peak_flops": kept[0], "bandwidth": kept[1]})
    memory = (device.memory_stats() or {}).get("bytes_limit", nearest.memory_bytes)
    source = "measured on the device"
    return dataclasses.replace(
        nearest,
        peak_flops=kept[0],
        bandwidth=kept[1],
        memory_bytes=int(memory),
        peak_source=source,
        bandwidth_source=source,
        memory_source=source,
    )


def _figures(found: Json) -> tuple[float, float]:
    """Raises a ValueError if they are no figures of a device."""
    figures = float(found["peak_flops"]), float(found["bandwidth"])
    if min(figures) <= 0:
        raise ValueError(f"{figures} must be above 0")
    return figures


def _capability(device: jax.Device) -> tuple[int, int] | None:
    """The compute capability of an NVIDIA device, if JAX tells it."""
    parts = str(getattr(device, "compute_capability", "")).split(".")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _peak_flops(device: jax.Device, size: int) -> float:
    """FLOP/s of products of square matrices, bfloat16 with float32 sums."""

    def products(matrix: jax.Array) -> jax.Array:
        def body(_: jax.Array, product: jax.Array) -> jax.Array:
            sums = jnp.matmul(product, matrix, preferred_element_type=jnp.float32)
            return (sums / size).astype(jnp.bfloat16)

        return jax.lax.fori_loop(0, _PRODUCTS, body, matrix)

    ones = jax.device_put(jnp.ones((size, size), jnp.bfloat16), device)
    return _PRODUCTS * 2 * size**3 / _least_seconds(products, ones)


def _bandwidth(device: jax.Device, mib: int) -> float:
    """Bytes a second of reading and writing a float32 array."""
    array = jax.device_put(jnp.ones(mib * 2**18, jnp.float32), device)
    return 2 * mib * 2**20 / _least_seconds(lambda values: values + 1, array)


def _least_seconds(
    function: Callable[[jax.Array], jax.Array], array: jax.Array
) -> float:
    compiled = jax.jit(function)
    compiled(array).block_until_ready()
    taken = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        compiled(array).block_until_ready()
        taken.append(time.perf_counter() - begin)
    return min(taken)
