"""What the candidates of a run are trained and scored on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.data import Dataset, windows
from jaxnas.keys import key_of
from jaxnas.training.devices import ONE, Devices
from jaxnas.training.distillation import Lesson
from jaxnas.training.settings import TrainSettings


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What every candidate of a run is trained on, and how."""

    dataset: Dataset
    settings: TrainSettings
    seed: int
    dtype: np.dtype  # of the matrix products
    devices: Devices = ONE  # that share each batch
    lesson: Lesson | None = None  # what is trained on instead of the training split

    def repeated(self, number: int) -> "Task":
        """The same from another seed, one for each number; itself for 0."""
        if number not in self._repeated:
            seed = self.seed + number
            self._repeated[number] = dataclasses.replace(self, seed=seed)
        return self._repeated[number]

    @functools.cached_property
    def _repeated(self) -> dict[int, "Task"]:
        return {0: self}

    @functools.cached_property
    def train_tokens(self) -> jax.Array | Lesson:
        """The training split, resident on each of the devices."""
        if self.lesson is not None:
            return self.devices.on_all(self.lesson)
        return self.devices.on_all(jnp.asarray(self.dataset.train))

    def tokens_on(self, device: jax.Device) -> jax.Array:
        """The training split on that device, put there once."""
        if device not in self._resident:
            self._resident[device] = jax.device_put(self.dataset.train, device)
        return self._resident[device]

    @functools.cached_property
    def _resident(self) -> dict[jax.Device, jax.Array]:
        return {}

    @functools.cached_property
    def token_bytes(self) -> jax.Array:
        """f32[V], bytes of each token."""
        return jnp.asarray(self.dataset.token_bytes, jnp.float32)

    def windows(self, split: str, number: int) -> np.ndarray:
        """i32[<= number, T+1]: windows of a split, evenly spaced, no overlap."""
        tokens, length = getattr(self.dataset, split), self.settings.window
        return windows(tokens, max(1, min(number, len(tokens) // (length + 1))), length)

    def key(self, purpose: str) -> jax.Array:
        """A PRNG key of the run's seed, another one for each purpose."""
        return key_of(self.seed, purpose)
