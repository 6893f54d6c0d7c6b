"""Code as it is read, whatever it comes from: files, and why others are left out."""

import dataclasses
import functools
import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from jaxnas.errors import UsageError
from jaxnas.storage.inputs import LINES_BYTES

MAX_BYTES = 1_000_000  # of one file; longer ones are seldom written by hand
NO_SUFFIX = "without a source suffix"
MAX_LINE = 10_000  # bytes; minified code and embedded data are longer
PIECE = 32_768  # bytes of what a longer file is cut into

# fmt: off
SUFFIXES = frozenset([
    ".bash", ".c", ".cc", ".clj", ".cpp", ".cs", ".cu", ".cxx", ".dart", ".erl", ".ex",
    ".exs", ".f90", ".fs", ".go", ".groovy", ".h", ".hh", ".hpp", ".hs", ".hxx",
    ".java", ".jl", ".js", ".jsx", ".kt", ".kts", ".lua", ".m", ".mjs", ".ml", ".mli",
    ".mm", ".nim", ".php", ".pl", ".pm", ".py", ".pyi", ".pyx", ".r", ".rb", ".rs",
    ".scala", ".sh", ".sql", ".swift", ".ts", ".tsx", ".v", ".vhd", ".zig",
])
# fmt: on


class DataError(UsageError):
    """The data cannot be used; the message is one line that says what to change."""


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One file of code."""

    name: str  # path below the source's folder, with forward slashes
    content: bytes  # not empty, valid UTF-8, no NUL
    weight: float = 1.0  # how often it is read for training

    @functools.cached_property
    def text(self) -> str:
        """The content, decoded."""
        return self.content.decode()

    @functools.cached_property
    def sha256(self) -> str:
        """A hash of the content alone, in hex: a renamed file keeps it."""
        return hashlib.sha256(self.content).hexdigest()


class Source(NamedTuple):
    """The files of a source, and what was not taken."""

    files: list[SourceFile]  # sorted by name
    left_out: dict[str, int]  # reason -> number of files
    skipped_folders: list[str]  # sorted; what lies in them was not looked at
    licences: Mapping[str, int] = {}  # as the source spells them -> how often


@dataclasses.dataclass
class Collected:
    """Files as they are found, and why others are not; of a bounded size."""

    files: list[SourceFile] = dataclasses.field(default_factory=list)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    licences: Counter[str] = dataclasses.field(default_factory=Counter)
    size: int = 0

    def take(self, name: str, content: bytes | str) -> None:
        """A file's bytes, or why it has none.

        Raises:
          DataError: all of them are more than is held in memory.
        """
        if isinstance(content, str):
            self.left_out[content] += 1
            return
        self.size += len(content)
        if self.size > LINES_BYTES:
            raise DataError(
                f"the source is larger than {LINES_BYTES:,} bytes: take less"
            )
        self.files.append(SourceFile(name, content))

    def take_pieces(self, name: str, content: bytes | str) -> None:
        """As `take`, a file in pieces, each of them a file that is split alone."""
        if isinstance(content, str):
            self.take(name, content)
            return
        for number, piece in enumerate(pieces(content), 1):
            self.take(f"{name}#{number}", piece)

    def source(self, skipped_folders: list[str]) -> Source:
        """All of it, in order."""
        self.files.sort(key=lambda file: file.name)
        left_out, licences = (
            sorted(self.left_out.items()),
            sorted(self.licences.items()),
        )
        return Source(self.files, dict(left_out), skipped_folders, dict(licences))


def too_large(most: int) -> str:
    """Why a file of more bytes is left out."""
    return f"larger than {most:,} bytes"


def pieces(content: bytes) -> list[bytes]:
    """A text that is `usable` in pieces of at most `PIECE` bytes.

    They end at an empty line where there is one, else at a line's end.
    """
    found, begin = [], 0
    while len(content) - begin > PIECE:
        within = content[begin : begin + PIECE]
        # A line is shorter than a piece, so there is an end.
        end = within.rfind(b"\n\n") + 2
        if end < 2:
            end = max(within.rfind(b"\n"), within.rfind(b"\r")) + 1
        found.append(within[:end])
        begin += end
    return [*found, content[begin:]]


def has_source_suffix(name: str) -> bool:
    """Whether a file's name ends as source code does."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def usable(content: bytes) -> bytes | str:
    """A file's bytes, or why they cannot be used."""
    if not content:
        return "empty"
    if b"\0" in content:
        return "binary"
    if max(map(len, content.splitlines())) > MAX_LINE:
        return f"with a line over {MAX_LINE:,} bytes"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    return content
