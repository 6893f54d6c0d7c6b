"""Neural architecture search for ultra-light code language models, in JAX."""

import importlib
from typing import TYPE_CHECKING

from jaxnas.version import __version__

if TYPE_CHECKING:
    from jaxnas.api import evaluate, resume, search
    from jaxnas.config import RunConfig
    from jaxnas.export.model_folder import load_model, save_model
    from jaxnas.results.result import Result

__all__ = [
    "Result",
    "RunConfig",
    "__version__",
    "evaluate",
    "load_model",
    "resume",
    "save_model",
    "search",
]

_HOMES = {
    "Result": "jaxnas.results.result",
    "RunConfig": "jaxnas.config",
    "evaluate": "jaxnas.api",
    "load_model": "jaxnas.export.model_folder",
    "resume": "jaxnas.api",
    "save_model": "jaxnas.export.model_folder",
    "search": "jaxnas.api",
}


def __getattr__(name: str) -> object:
    """Imports what is asked for, so that the command line starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxnas' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
