"""A folder of results that can always be computed again."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from jaxnas.storage.files import write_json
from jaxnas.storage.jsonl import Json

Kept = TypeVar("Kept")


def cache_dir() -> Path:
    """`$JAXNAS_CACHE`, else `$XDG_CACHE_HOME/jaxnas`, else `~/.cache/jaxnas`."""
    if own := os.environ.get("JAXNAS_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "jaxnas"
    try:
        return Path.home() / ".cache" / "jaxnas"
    except RuntimeError:  # a user without a home, as some containers have
        return Path(tempfile.gettempdir()) / "jaxnas"


def read_kept(path: Path, parse: Callable[[Json], Kept]) -> Kept | None:
    """What `keep` wrote, parsed; None if there is nothing, or it is damaged."""
    try:
        return parse(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(path: Path, value: Json) -> bool:
    """Keeps a measurement; False if the folder can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)
    except OSError:
        return False  # measured again by the next run
    return True


def load(path: Path) -> bytes | None:
    """What `store` wrote, or None if there is no such entry or it is damaged."""
    try:
        digest, payload = (raw := path.read_bytes())[:32], raw[32:]
    except OSError:
        return None
    return payload if hashlib.sha256(payload).digest() == digest else None


def store(path: Path, payload: bytes) -> bool:
    """Writes an entry, whole or not at all; False if the folder can't be written.

    The temporary file's name is never read, so a killed writer does no harm, and
    of several writers the last wins.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".tmp", path.name + ".", path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(payload).digest() + payload)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False
    return True
