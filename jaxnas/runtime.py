"""How JAX is set up for a run."""

import ctypes
import functools
import os
import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.errors import UsageError, no_platform
from jaxnas.storage.cache import in_cache

_M_ARENA_MAX = -8  # of mallopt(3)
_HEAPS = 4  # one makes compilers wait for each other; each keeps what was free in it
_LEVEL = "xla_backend_optimization_level"
_EMITTERS = "xla_cpu_use_fusion_emitters"
ON_GPU: dict[str, str | bool] = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_autotune_level": "0",
}


def set_up() -> None:
    """Keeps compiled programs across processes: a second run compiles nothing.

    A cache that the user has set up is left as it is. Threads share a few
    heaps: compilers leave most of theirs free, each in one of its own otherwise.
    """
    if (libc := _glibc()) and "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(_M_ARENA_MAX, _HEAPS)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        folder = in_cache("xla")
        try:
            if folder is None:
                return  # everything is compiled anew
            folder.mkdir(0o700, exist_ok=True)
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def give_back() -> None:
    """Hands memory that is free in the heap back to the system, where it is glibc's."""
    if libc := _glibc():
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    return libc if hasattr(libc, "malloc_trim") else None


def backend() -> str:
    """JAX's platform.

    Raises:
      UsageError: JAX_PLATFORMS names none that is here.
    """
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        if (said := no_platform(error)) is None:
            raise
        raise UsageError(said) from None


def compute_dtype() -> np.dtype:
    """bfloat16 where matrix units have it; float32 on a CPU."""
    return jnp.dtype("float32" if backend() == "cpu" else "bfloat16")


def compiler_options(platform: str, quick: bool = False) -> dict[str, str | bool]:
    """What training programs are compiled with, where the user's XLA_FLAGS do not say.

    On a CPU the first level of optimisation compiles faster, and steps take as long;
    without fusion emitters, for what is `quick`, it takes 0.6 to 0.8 of that time. On
    a GPU cuBLAS's own choice of kernels is as fast as what trying them all finds, and
    takes no time (see experiments/speed/RESULTS.md).
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if platform != "cpu":
        return {
            name: value
            for name, value in ON_GPU.items()
            if name not in flags and _is_option(name, value)
        }
    options: dict[str, str | bool] = {}
    if _LEVEL not in flags:
        options[_LEVEL] = "1"
    if quick and _EMITTERS not in flags and _is_option(_EMITTERS, False):
        options[_EMITTERS] = False
    return options


@functools.cache
def _is_option(name: str, value: str | bool) -> bool:
    """Whether this XLA knows the option."""
    try:
        jax.jit(lambda x: x).lower(0).compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def workers_of(device: jax.Device) -> int:
    """Members to train at once on a device: one, or one a core of its own on a CPU."""
    if device.platform != "cpu":
        return 1
    return max(1, cores() // jax.local_device_count())


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The model of the first core: the others are its like."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line for line in lines if line.startswith(("model name", "CPU part"))]
    return names[0].partition(":")[2].strip() if names else platform.processor()
