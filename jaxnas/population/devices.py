"""What a run trains on: its devices, their memory, how fast they are."""

import dataclasses
import functools
import os

import jax

from jaxnas.population.cost_model import Rates, fitted_rates
from jaxnas.runtime import cores, workers_of

MEMORY_SHARE = 0.8  # of a device, that training may use
TRACING = 2  # programs compiled at once beside a GPU; with more, each takes longer


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Machine:
    """The local devices, or as many workers of a cluster that have their like.

    Attributes:
      devices: of this process.
      limit: bytes of each that may be used; None for `MEMORY_SHARE` of it.
      cluster: workers that train in place of the local devices, a core or an
        accelerator each; 0 if there are none.
    """

    devices: tuple[jax.Device, ...]
    limit: float | None = None
    cluster: int = 0

    @property
    def number(self) -> int:
        """Devices that a plan counts; the cores of all workers are one."""
        if self.cluster and not self.shares_cores:
            return self.cluster
        return len(self.devices)

    @functools.cached_property
    def workers(self) -> int:
        """Members that each device trains at once."""
        if self.cluster and self.shares_cores:
            return -(-self.cluster // len(self.devices))
        return workers_of(self.devices[0])

    @functools.cached_property
    def cores(self) -> int:
        """Cores of the host, which compile; tracing is Python's, one at a time."""
        if self.cluster:
            return self.cluster
        return cores() if self.shares_cores else min(cores(), TRACING)

    @property
    def shares_cores(self) -> bool:
        """True if training and compiling take the same cores."""
        return self.devices[0].platform == "cpu"

    @property
    def portable(self) -> bool:
        """True if a program compiled for one device is in the cache for all."""
        return len(self.devices) == 1 or not self.shares_cores

    @functools.cached_property
    def memory(self) -> float:
        """Bytes of each device that may be used, by the smallest."""
        if self.limit is not None:
            return self.limit
        return min(map(self._memory_of, self.devices)) * MEMORY_SHARE

    @functools.cached_property
    def rates(self) -> Rates:
        """What training costs here: plans depend on ratios, which hold elsewhere."""
        fitted = fitted_rates(self.devices[0].platform)
        return dataclasses.replace(fitted, workers=self.workers)

    @property
    def vmapped(self) -> bool:
        """Whether members run at once: where launches are what a step costs."""
        return not self.shares_cores

    def _memory_of(self, device: jax.Device) -> float:
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return float(stats["bytes_limit"])
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return host / len(self.devices)


def local_machine(limit: float | None = None, cluster: int = 0) -> Machine:
    """All devices of this process; arguments as for `Machine`."""
    devices = tuple(jax.local_devices())
    return Machine(devices=devices, limit=limit, cluster=cluster)
