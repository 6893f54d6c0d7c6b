"""JSON-lines files that survive being killed at any moment, and prove themselves.

A line counts once its newline is there: a line cut short by a kill is dropped when
the file is read again. Each line ends with a digest of itself and of the digest
before it, so that one that was changed, left out or written twice is found. Files
of versions before 0.1.0 have no digests; what is appended to them has.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

from jaxnas.errors import UsageError
from jaxnas.storage import disk
from jaxnas.storage.inputs import LINES_BYTES, parse_json, read_bytes

# A JSON object, as it is read or written.
Json: TypeAlias = dict[str, Any]

CHAIN = "chain"  # the name of the digest in a line
_ENDING = re.compile(rb'(?:, )?"chain": "([0-9a-f]{16})"\}$')


class DamagedLine(UsageError):
    """A line that cannot be read, or is not what was written there."""

    def __init__(self, path: Path, number: int, reason: str) -> None:
        super().__init__(f"{path} is damaged in line {number}: {reason}")
        self.number, self.reason = number, reason


class Mark(NamedTuple):
    """The first lines of a file, and the digest of all of them."""

    lines: int
    digest: str


class Line(NamedTuple):
    """A line as it was read or written.

    Attributes:
      entry: what it holds, without its digest.
      digest: of it and of all before it.
      proven: whether it holds its digest.
      end: bytes of the file up to its end.
    """

    entry: Json
    digest: str
    proven: bool
    end: int


class Lines:
    """A JSON-lines file that is appended to, each line flushed as it comes."""

    def __init__(self, path: Path) -> None:
        """Opens the file; what follows its last newline is cut off.

        Raises:
          UsageError: a line is not a JSON object, or not what was written there.
        """
        self.path = path
        self._lines = list(scan(path)) if path.exists() else []
        self._file = disk.open_file(path, "ab")
        try:
            self._cut()
        except OSError:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Json]:
        return (line.entry for line in self._lines)

    @property
    def proven(self) -> bool:
        """Whether every line holds its digest."""
        return all(line.proven for line in self._lines)

    def append(self, entry: Mapping[str, object]) -> None:
        """Writes one line, and waits until the system has it."""
        line, digest = chained(entry, self._lines[-1].digest if self._lines else "")
        try:
            disk.write(self._file, line)
            disk.sync(self._file)
        except OSError:
            with contextlib.suppress(OSError):  # half a line would spoil the next
                self._cut()
            raise
        read_back = json.loads(to_line(entry))
        self._lines.append(Line(read_back, digest, True, self._end() + len(line)))

    def keep(self, number: int) -> None:
        """Drops all lines but the first `number`."""
        del self._lines[number:]
        self._cut()

    def mark(self, number: int | None = None) -> Mark:
        """Of the first `number` lines, of all by default."""
        return mark_of(self._lines, number)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self) -> None:
        """Drops what follows the last whole line."""
        if os.fstat(self._file.fileno()).st_size != self._end():
            disk.truncate(self._file, self._end())

    def _end(self) -> int:
        return self._lines[-1].end if self._lines else 0


def mark_of(lines: Sequence[Line], number: int | None = None) -> Mark:
    """Of the first `number` lines, of all by default; of all where there are fewer."""
    first = lines[:number]
    return Mark(len(first), first[-1].digest if first else "")


def read_lines(path: Path) -> list[Json]:
    """The objects of a JSON-lines file that another run may be writing to.

    Raises:
      UsageError: the file cannot be read, or a line is not a JSON object, or not
        what was written there.
    """
    return [line.entry for line in scan(path)]


def scan(path: Path) -> Iterator[Line]:
    """The lines of a file, each checked against its digest; errors as `read_lines`."""
    digest, proven, end = "", False, 0
    raw = read_bytes(path, LINES_BYTES).split(b"\n")[:-1]
    for number, line in enumerate(raw, 1):
        body, said = _body_and_digest(line)
        digest, end = digest_of(digest, body), end + len(line) + 1
        if said != digest and (proven or said is not None):
            raise DamagedLine(path, number, "it is not what was written there")
        proven = said is not None
        try:
            entry = parse_json(body)
        except ValueError as error:
            raise DamagedLine(path, number, str(error)) from None
        if not isinstance(entry, dict):
            raise DamagedLine(path, number, "no JSON object")
        yield Line(entry, digest, proven, end)


def to_line(entry: Mapping[str, object]) -> bytes:
    """One line of JSON; a NaN is an error, for it would not read back."""
    return json.dumps(entry, allow_nan=False).encode() + b"\n"


def chained(entry: Mapping[str, object], before: str) -> tuple[bytes, str]:
    """A line that ends with its digest, and the digest.

    Args:
      entry: what it holds.
      before: the digest of the line before, empty for the first.
    """
    body = to_line(entry)[:-1]
    digest = digest_of(before, body)
    comma = ", " if entry else ""
    return body[:-1] + f'{comma}"{CHAIN}": "{digest}"}}\n'.encode(), digest


def _body_and_digest(line: bytes) -> tuple[bytes, str | None]:
    """What `chained` put together; None for a line without a digest."""
    match = _ENDING.search(line)
    if match is None:
        return line, None
    return line[: match.start()] + b"}", match[1].decode()


def digest_of(before: str, body: bytes) -> str:
    """The digest of a line, as its bytes without one, and of all before it."""
    return hashlib.sha256(before.encode() + body).hexdigest()[:16]
