"""What a run changes on the disk: one function for each kind of change.

Nothing else in a run writes, so that tests can put others in their place: each call
fails in turn, as on a full disk, or is the last of a process that is killed there.
They are called as `disk.write`, never imported by their names.
"""

import os
import shutil
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Literal


def open_file(path: Path, mode: Literal["wb", "ab"]) -> FileIO:
    """A file to write to, "wb" or "ab"; what is written is with the system at once."""
    return FileIO(path, mode)


def write(file: FileIO, content: bytes) -> None:
    """Writes all of it."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def sync(file: FileIO) -> None:
    """Waits until the disk has what was written."""
    os.fsync(file.fileno())


def truncate(file: FileIO, size: int) -> None:
    """Cuts a file."""
    file.truncate(size)


def rename(old: Path, new: Path) -> None:
    """Puts a file in another's place, in one step."""
    old.replace(new)


def remove(path: Path) -> None:
    """Removes a file; one that is not there is no error."""
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Removes a folder with all in it."""
    shutil.rmtree(path)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; one that is there stays."""
    path.mkdir(parents=True, exist_ok=True)


def save(write: Callable[[], object]) -> None:
    """Has a library write what it renames into place when it is whole."""
    write()
