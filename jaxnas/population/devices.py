"""What a run trains on: its devices, their memory, how fast they are."""

import dataclasses
import functools
import os
from collections.abc import Callable

import jax

from jaxnas.population.calibration import Calibration, assumed, calibration_of
from jaxnas.runtime import cores, workers_of

MEMORY_SHARE = 0.8  # of a device, that training may use


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Machine:
    """The local devices.

    Attributes:
      devices: of this process.
      limit: bytes of each that may be used; None for `MEMORY_SHARE` of it.
      known: the first device's calibration; None to read or measure it.
      say: told when something is measured.
    """

    devices: tuple[jax.Device, ...]
    limit: float | None = None
    known: Calibration | None = None
    say: Callable[[str], None] = lambda text: None

    @functools.cached_property
    def workers(self) -> int:
        """Members that each device trains at once."""
        return workers_of(self.devices[0])

    @functools.cached_property
    def cores(self) -> int:
        """Cores of the host, which compile."""
        return cores()

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
    def calibration(self) -> Calibration:
        """The first device's calibration."""
        return self.known or self._calibration_of(self.devices[0])

    @functools.cached_property
    def speeds(self) -> tuple[float, ...]:
        """Steps a second of each device, relative to the first."""
        first = self.calibration
        found = []
        for device in self.devices:
            other = first
            if device.device_kind != self.devices[0].device_kind:
                other = self._calibration_of(device)
            found.append(first.a_step / other.a_step)
        return tuple(found)

    def _calibration_of(self, device: jax.Device) -> Calibration:
        if device.platform == "cpu":  # what compiling costs beside training is known
            return assumed(self.workers)
        return calibration_of(device, self.workers, self.say)

    def _memory_of(self, device: jax.Device) -> float:
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return float(stats["bytes_limit"])
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return host / len(self.devices)


def local_machine(
    limit: float | None = None,
    known: Calibration | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Machine:
    """All devices of this process; arguments as for `Machine`."""
    devices = tuple(jax.local_devices())
    return Machine(devices=devices, limit=limit, known=known, say=say)
