"""Whole files, written beside and renamed: readers see the old one or the new one."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from jaxnas.storage import disk

PARTIAL = ".partial"


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces a file in one step: readers see the old one or the new one."""
    content = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with disk.open_file(beside, "wb") as file:
            disk.write(file, content)
            disk.sync(file)
        disk.rename(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is told
            disk.remove(beside)
        raise


def remove_partial(folder: Path) -> None:
    """Removes what a killed `write_whole` left in the folder."""
    for path in folder.glob(f".*{PARTIAL}"):
        disk.remove(path)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """`write_whole` of indented JSON."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
