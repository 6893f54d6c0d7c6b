"""What a model is: configs, spaces, Flax modules and costs."""

from arch.config import ArchitectureConfig
from arch.model import (
    LanguageModel,
    ModelState,
    Params,
    build_model,
    init_states,
)

__all__ = [
    "ArchitectureConfig",
    "LanguageModel",
    "ModelState",
    "Params",
    "build_model",
    "init_states",
]
