"""Folders that are there whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxnas.errors import UsageError
from jaxnas.storage.files import PARTIAL


def check_free(path: Path) -> None:
    """Makes sure that a folder can be made without losing anything.

    Raises:
      UsageError: something is there that is no empty folder.
    """
    if path.is_dir():
        if any(path.iterdir()):
            raise UsageError(f"{path} is not empty: choose another --out")
    elif path.exists() or path.is_symlink():
        raise UsageError(f"{path} is no folder: choose another --out")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `path` when the block is done.

    If the block fails, nothing of it stays.

    Raises:
      UsageError: `path` is not free, or cannot be made.
    """
    check_free(path)
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror}") from None
    try:
        yield beside
        beside.replace(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
