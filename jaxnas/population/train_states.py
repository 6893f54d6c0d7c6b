"""Training states between phases, on the disk: Orbax, one folder a training."""

from collections.abc import Collection
from pathlib import Path

import jax
import numpy as np

from arch import ArchitectureConfig
from jaxnas.storage import disk
from jaxnas.storage.checkpoints import load_tree, save_tree
from jaxnas.training.keys import stage_of
from jaxnas.training.loop import TrainState
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import blank_state

CURE = "remove it, and what led to it is trained again"


class States:
    """States by training key. Orbax renames a whole one into place."""

    def __init__(self, folder: Path) -> None:
        """The folder is made when the first state comes."""
        self.folder = folder.resolve()

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_dir()

    def save(self, key: str, state: TrainState) -> None:
        """Keeps a state, NumPy arrays; one that is there already is replaced."""
        tree = jax.tree.map(np.asarray, state._asdict())
        save_tree(self._path(key), tree, {}, overwrite=True)

    def load(
        self, key: str, config: ArchitectureConfig, settings: TrainSettings
    ) -> TrainState:
        """The state of a config's training, NumPy arrays.

        Raises:
          UsageError: it is damaged.
        """
        # Orbax reads arrays of the host where it is shown some.
        like = blank_state(config, settings)._asdict()
        found = load_tree(self._path(key), like, CURE)
        return TrainState(**jax.tree.map(np.asarray, found))

    def keep(self, keys: Collection[str], stages: Collection[str]) -> None:
        """Removes all others of these stages."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.name not in keys and stage_of(path.name) in stages:
                disk.remove_folder(path)

    def _path(self, key: str) -> Path:
        return self.folder / key
