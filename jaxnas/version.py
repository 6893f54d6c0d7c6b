"""The version of all three packages, and of those that they stand on."""

import importlib.metadata

__version__ = "0.1.0"

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tokenizers",
)


def packages() -> dict[str, str]:
    """The versions of all that decides the last digits."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"jaxnas": __version__, **found}
