"""Whole files, written beside and renamed: readers see the old one or the new one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

PARTIAL = ".partial"


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces a file in one step: readers see the old one or the new one."""
    content = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def remove_partial(folder: Path) -> None:
    """Removes what a killed `write_whole` left in the folder."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink()


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """`write_whole` of indented JSON."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
