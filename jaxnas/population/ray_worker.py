"""A worker process of a Ray cluster.

JAX is imported once the process has the environment of the run's own, not before.
"""

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jaxnas.population.remote_call import About, Call, Ran, Session, SharedWork

# Variables that decide how JAX computes and where it keeps what it compiled. Ray sets
# the threads of OpenMP by a worker's cores.
MIRRORED = ("JAX_", "JAXNAS_", "XLA_", "MALLOC_ARENA_MAX", "NPROC", "OMP_NUM_THREADS")


class Setup(NamedTuple):
    """What a worker takes over from the run's own process.

    Attributes:
      environment: its variables that begin as one of `MIRRORED`.
      config: see `deciding_config`.
      limit: bytes of a device that may be used; None for a share of it.
    """

    environment: Mapping[str, str]
    config: Mapping[str, Any]
    limit: float | None


def mirrored() -> dict[str, str]:
    """The variables of this process that workers take over."""
    return {
        name: value for name, value in os.environ.items() if name.startswith(MIRRORED)
    }


class Worker:
    """Runs one call at a time; `stop` may be called meanwhile."""

    def __init__(self, setup: Setup) -> None:
        """Nothing happens yet: what can go wrong is an answer of `ready`."""
        self._setup = setup
        self._session: Session | None = None
        self._dataset: Any = None
        self._lock = threading.Lock()
        self._stopped = -1  # the plan up to which calls are given up

    def ready(self) -> "About":
        """Imports and sets up JAX; says what the worker is."""
        for name in mirrored():
            del os.environ[name]
        os.environ.update(self._setup.environment)
        import jax

        from jaxnas.population.remote_call import About, Session
        from jaxnas.version import __version__

        self._session = Session(self._setup.config, self._setup.limit)
        return About(*self._session.platform, __version__, jax.__version__)

    def run(self, plan: int, data: list, shared: "SharedWork", call: "Call") -> "Ran":
        """See `Session.run`.

        Args:
          plan: its number: plans are numbered as they come.
          data: a reference to the `Dataset`, in a list so that it stays one.
          shared: see `SharedWork`.
          call: see `Call`.
        """
        import ray

        assert self._session is not None
        if self._dataset is None:
            [reference] = data
            self._dataset = ray.get(reference)
        return self._session.run(
            self._dataset, shared, call, lambda: plan <= self._stopped
        )

    def stop(self, plan: int) -> None:
        """Gives up what runs of this plan and those before."""
        self._stopped = max(self._stopped, plan)
