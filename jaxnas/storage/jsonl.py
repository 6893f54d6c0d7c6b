"""JSON-lines files that survive being killed at any moment.

A line counts once its newline is there: a line cut short by a kill is dropped
when the file is read again.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

from jaxnas.errors import UsageError

# A JSON object, as it is read or written.
Json: TypeAlias = dict[str, Any]


class Lines:
    """A JSON-lines file that is appended to, each line flushed as it comes."""

    def __init__(self, path: Path) -> None:
        """Opens the file; what follows its last newline is cut off.

        Raises:
          UsageError: a line is not a JSON object.
        """
        self.path = path
        lines = _whole_lines(path) if path.exists() else []
        self._entries = [_parsed(path, n, line) for n, line in enumerate(lines, 1)]
        self._ends = [*itertools.accumulate(len(line) + 1 for line in lines)]
        self._file = path.open("ab")
        self._file.truncate(self._end())

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Json]:
        return iter(self._entries)

    def append(self, entry: Mapping[str, object]) -> None:
        """Writes one line, and waits until the system has it."""
        line = to_line(entry)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._entries.append(json.loads(line))
        self._ends.append(self._end() + len(line))

    def keep(self, number: int) -> None:
        """Drops all lines but the first `number`."""
        self._entries, self._ends = self._entries[:number], self._ends[:number]
        self._file.truncate(self._end())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self) -> int:
        return self._ends[-1] if self._ends else 0


def read_lines(path: Path) -> list[Json]:
    """The objects of a JSON-lines file that another run may be writing to.

    Raises:
      UsageError: the file cannot be read, or a line is not a JSON object.
    """
    try:
        lines = _whole_lines(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    return [_parsed(path, number, line) for number, line in enumerate(lines, 1)]


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def _parsed(path: Path, number: int, line: bytes) -> Json:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{path} is damaged in line {number}: {error}") from None
    if not isinstance(entry, dict):
        raise UsageError(f"{path} is damaged in line {number}: no JSON object")
    return entry


def to_line(entry: Mapping[str, object]) -> bytes:
    """One line of JSON; a NaN is an error, for it would not read back."""
    return json.dumps(entry, allow_nan=False).encode() + b"\n"
