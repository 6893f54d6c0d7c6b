"""Under which key a training is recorded: the same for all configs that train alike."""

import functools
import hashlib
import json

from arch import ArchitectureConfig
from jaxnas.training.single import training_config

_DIGITS = 16  # of a config's hash


@functools.lru_cache(maxsize=4096)  # a candidate is looked up again and again
def training_key(config: ArchitectureConfig, stage: str = "") -> str:
    """The same for all configs that train alike.

    Args:
      config: compression is left out of account.
      stage: what sets apart the trainings of one config, in a phase or from a
        seed, see `Phase.stage`; "" for the first phase from the run's own.
    """
    fields = json.dumps(training_config(config).to_dict(), sort_keys=True)
    return hashlib.sha256(fields.encode()).hexdigest()[:_DIGITS] + stage


def stage_of(key: str) -> str:
    """The stage of a training's key."""
    return key[_DIGITS:]
