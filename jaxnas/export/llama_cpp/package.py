"""The package that reads and writes GGUF files, which is an extra."""

import importlib.util

from jaxnas.errors import UsageError

PACKAGE = "gguf"


def check_package() -> None:
    """Raises a UsageError where it is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise UsageError(f"GGUF needs the package {PACKAGE}: pip install {PACKAGE}")
