"""The devices that share each batch of a training: one, all of a host's, or more."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from arch import ArchitectureConfig
from jaxnas.training.loop import Schedule, TrainState
from jaxnas.training.settings import TrainSettings

Tree = TypeVar("Tree")  # of arrays


class TrainingProgram(NamedTuple):
    """What the program of a training is made from, and all its calls have in common.

    Attributes:
      config: see `training_config`.
      settings: see `TrainSettings`.
      dtype: of the matrix products.
      key: PRNG key of the dropout.
    """

    config: ArchitectureConfig
    settings: TrainSettings
    dtype: np.dtype
    key: jax.Array


class Devices:
    """One device, which shares nothing."""

    number = 1
    hosts = 1
    everywhere: jax.sharding.NamedSharding | None = None  # all of it on each device

    def on_all(self, tree: Tree) -> Tree:
        """The same arrays on each device."""
        return tree

    def on_one(self, tree: Tree) -> Tree:
        """The inverse of `on_all`, as far as programs of this host alone need it."""
        return tree

    def shared_out(self, rows: np.ndarray) -> Any:
        """[S, B] -> the same, each device with a part of the columns."""
        return rows

    def before(self, state: TrainState) -> TrainState:
        """A state before its training, as checkpoints are to restore it."""
        return self.on_all(state)

    def begin(self, training: TrainingProgram, state: TrainState) -> TrainState:
        """Told before the calls of a training; its state, where they take it."""
        del training
        return state

    def call(
        self, rows: np.ndarray, schedule: Schedule, steps: int
    ) -> contextlib.AbstractContextManager[None]:
        """Around each call of the training, told what it is called with."""
        del rows, schedule, steps
        return contextlib.nullcontext()


ONE = Devices()


class SharedDevices(Devices):
    """Several devices, each with all of the weights and a part of each batch."""

    everywhere: jax.sharding.NamedSharding

    def __init__(self, devices: Sequence[jax.Device]) -> None:
        """A mesh of them, of one axis."""
        self.number = len(devices)
        kind = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((self.number,), ("data",), kind, devices=devices)
        spec = jax.sharding.PartitionSpec
        self.everywhere = jax.sharding.NamedSharding(mesh, spec())
        self._columns = jax.sharding.NamedSharding(mesh, spec(None, "data"))

    def on_all(self, tree: Tree) -> Tree:
        """The same arrays on each device."""
        return jax.device_put(tree, self.everywhere)

    def shared_out(self, rows: np.ndarray) -> jax.Array:
        """[S, B] -> the same, each device with a part of the columns."""
        return jax.device_put(rows, self._columns)


def local_devices(rows: int) -> Devices:
    """As many of this host's as share so many rows of a batch equally."""
    found = jax.local_devices()
    number = max(n for n in range(1, len(found) + 1) if rows % n == 0)
    return SharedDevices(found[:number]) if number > 1 else ONE
