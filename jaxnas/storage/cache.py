"""A folder of results that can always be computed again; it is the user's alone."""

import contextlib
import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from jaxnas.storage.files import write_json
from jaxnas.storage.inputs import read_json
from jaxnas.storage.jsonl import Json

Kept = TypeVar("Kept")

_OTHERS_MAY_WRITE = 0o022


def cache_dir() -> Path | None:
    """`$JAXNAS_CACHE`, else `$XDG_CACHE_HOME/jaxnas`, else `~/.cache/jaxnas`.

    None for a user without a home, as some containers have: a folder that all users
    share is no place for what is read back.
    """
    if own := os.environ.get("JAXNAS_CACHE"):
        return Path(os.path.expanduser(own))
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "jaxnas"
    try:
        return Path.home() / ".cache" / "jaxnas"
    except RuntimeError:
        return None


def in_cache(*names: str) -> Path | None:
    """Where an entry lies; its folder is there. None, said once, without a cache."""
    folder = cache_dir()
    if (wrong := _made_private(folder)) is not None:
        _say_once(f"nothing is cached: {wrong}")
        return None
    assert folder is not None
    path = folder.joinpath(*names)
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return path


def _made_private(folder: Path | None) -> str | None:
    """Makes the folder if it is not there; why it can't be trusted, if so."""
    if folder is None:
        return "there is no home folder; JAXNAS_CACHE names another place"
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, ValueError) as error:
        return f"{folder}: {getattr(error, 'strerror', None) or error}"
    if status.st_uid not in (os.geteuid(), 0):
        return f"{folder} belongs to another user; JAXNAS_CACHE names another place"
    if status.st_mode & _OTHERS_MAY_WRITE:
        return f"other users may write in {folder} (chmod go-w lets it be used)"
    return None


@functools.cache
def _say_once(text: str) -> None:
    print(f"jaxnas: {text}", file=sys.stderr)


def recall(path: Path | None, parse: Callable[[Json], Kept]) -> Kept | None:
    """What `keep` wrote, parsed; None if there is nothing, or it is damaged."""
    if path is None:
        return None
    try:
        return parse(read_json(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def keep(path: Path | None, value: Json) -> bool:
    """Keeps a measurement; False if the folder can't be written."""
    if path is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)
    except OSError:
        return False  # measured again by the next run
    return True


def load(path: Path | None) -> bytes | None:
    """What `store` wrote, or None if there is no such entry or it is damaged."""
    if path is None:
        return None
    try:
        digest, payload = (raw := path.read_bytes())[:32], raw[32:]
    except OSError:
        return None
    return payload if hashlib.sha256(payload).digest() == digest else None


def store(path: Path | None, payload: bytes) -> bool:
    """Writes an entry, whole or not at all; False if the folder can't be written.

    The temporary file's name is never read, so a killed writer does no harm, and
    of several writers the last wins.
    """
    temporary = None
    if path is None:
        return False
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
