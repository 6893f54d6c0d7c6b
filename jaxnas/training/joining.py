"""The processes of several hosts come together for one training."""

import collections
import contextlib
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from jaxnas.errors import UsageError, reason_of
from jaxnas.version import packages

JOINING = 300  # seconds in which all hosts must have begun
PARTING = 10  # seconds in which all hosts must have ended


def join(address: str | None, number: int | None, index: int | None) -> None:
    """Connects this process with those of the other hosts.

    To be called before anything else of JAX.

    Args:
      address: HOST:PORT of the first; None for what SLURM, Open MPI or Kubernetes
        say.
      number: of hosts.
      index: of this one, from 0.

    Raises:
      UsageError: they do not come together, or differ.
    """
    where = f"--hosts {'auto' if address is None else address}"
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM
    try:
        with signals_handled(signal.SIG_DFL):  # Python hears none while JAX waits
            jax.distributed.initialize(
                address,
                number,
                index,
                cluster_detection_method=None if address is None else "deactivate",
                initialization_timeout=JOINING,
                shutdown_timeout_seconds=PARTING,
            )
            differ = _differences()
    except Exception as error:  # each scheduler has its own
        raise UsageError(f"{where}: {reason_of(error)}") from None
    if differ is not None:
        raise UsageError(f"{where}: {differ}")


def _differences() -> str | None:
    """In what the hosts differ that have to be alike; all find the same."""
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        return "all hosts must have the same number of devices"
    device = jax.local_devices()[0]
    facts = {"platform": device.platform, **packages()}
    facts["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "")
    said = hashlib.sha256(json.dumps(facts).encode()).digest()
    every = process_allgather(np.frombuffer(said, np.uint8))
    if len(np.unique(every, axis=0)) == 1:
        return None
    own = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
    return f"all hosts must have the same versions, and this one has {own}"


@contextlib.contextmanager
def signals_handled(handler: Any) -> Iterator[None]:
    """Another handler for what asks a process to end."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leads() -> bool:
    """Whether this is the first host."""
    return jax.process_index() == 0


def which() -> str:
    """Which host this is, in words."""
    devices = f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"
    place = f"host {jax.process_index() + 1} of {jax.process_count()}"
    return f"{place} follows the first, with {devices}"
