"""Where the code comes from: the standard library, a folder, or published wheels."""

import dataclasses
import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxnas.errors import UsageError
from jaxnas.storage.inputs import read_bytes

MAX_BYTES = 1_000_000  # of one file; longer ones are seldom written by hand
TOO_LARGE, NO_SUFFIX = f"larger than {MAX_BYTES:,} bytes", "without a source suffix"
MAX_LINE = 10_000  # bytes; minified code and embedded data are longer

# fmt: off
SUFFIXES = frozenset([
    ".bash", ".c", ".cc", ".clj", ".cpp", ".cs", ".cu", ".cxx", ".dart", ".erl", ".ex",
    ".exs", ".f90", ".fs", ".go", ".groovy", ".h", ".hh", ".hpp", ".hs", ".hxx",
    ".java", ".jl", ".js", ".jsx", ".kt", ".kts", ".lua", ".m", ".mjs", ".ml", ".mli",
    ".mm", ".nim", ".php", ".pl", ".pm", ".py", ".pyi", ".pyx", ".r", ".rb", ".rs",
    ".scala", ".sh", ".sql", ".swift", ".ts", ".tsx", ".v", ".vhd", ".zig",
])
# fmt: on

SKIPPED_FOLDERS = frozenset(
    [
        "build",
        "dist",
        "dist-packages",
        "node_modules",
        "site-packages",
        "target",
        "venv",
    ]
)

# Folders and files of the standard library that are not representative code.
STDLIB_TESTS = frozenset(["test", "tests", "idle_test"])
STDLIB_TABLES = frozenset(
    [
        "_compat_pickle.py",
        "_opcode_metadata.py",
        "encodings",  # nearly all of it is one table a code page
        "html/entities.py",
        "keyword.py",
        "pydoc_data",
        "re/_casefix.py",
        "stringprep.py",
        "token.py",
    ]
)
# What one platform has and another lacks, or one Python release and not the next.
STDLIB_NOT_EVERYWHERE = frozenset(
    [
        "_aix_support.py",
        "_android_support.py",
        "_apple_support.py",
        "_ios_support.py",
        "_osx_support.py",
        "distutils",
        "ensurepip",
        "idlelib",
        "lib-dynload",
        "lib2to3",
        "msilib",
        "sitecustomize.py",
        "tkinter",
        "turtledemo",
    ]
)


class DataError(UsageError):
    """The data cannot be used; the message is one line that says what to change."""


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One file of code."""

    name: str  # path below the source's folder, with forward slashes
    content: bytes  # not empty, valid UTF-8, no NUL

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


def read_stdlib(folder: Path) -> Source:
    """Reads a standard library: `.py` files, no tests, tables or platform files."""

    def skip(name: str) -> bool:
        last = name.rpartition("/")[2]
        return (
            last in STDLIB_TESTS
            or last in ("site-packages", "dist-packages")
            or last.startswith((".", "config-"))
            or name in STDLIB_TABLES | STDLIB_NOT_EVERYWHERE
        )

    def refuse(name: str) -> str | None:
        last = name.rpartition("/")[2]
        if not last.endswith(".py"):
            return "not Python"
        if last.startswith("test_"):
            return "a test"
        if name in STDLIB_TABLES or last.startswith("_sysconfigdata"):
            return "a generated table"
        return "not on every platform" if name in STDLIB_NOT_EVERYWHERE else None

    usable = "UTF-8 files ending in .py"
    return _read(folder, skip, refuse, usable, links_out=True)


def read_folder(folder: Path) -> Source:
    """Reads a folder of source code, recursively, without following folder links."""

    def skip(name: str) -> bool:
        last = name.rpartition("/")[2]
        return last.startswith(".") or last in SKIPPED_FOLDERS

    def refuse(name: str) -> str | None:
        return None if has_source_suffix(name) else NO_SUFFIX

    endings = " ".join(sorted(SUFFIXES))
    return _read(folder, skip, refuse, f"UTF-8 files ending in one of {endings}")


def _read(
    folder: Path,
    skip: Callable[[str], bool],
    refuse: Callable[[str], str | None],
    usable: str,
    links_out: bool = False,
) -> Source:
    """Reads what is left after `skip` (folders) and `refuse` (files, why).

    Files that links lead to count where they lie in the folder, and elsewhere if
    `links_out`.
    """
    if not folder.exists():
        raise DataError(f"data folder {str(folder)!r} does not exist")
    if not folder.is_dir():
        raise DataError(f"data folder {str(folder)!r} is a file: give the folder")
    files: list[SourceFile] = []
    left_out: Counter[str] = Counter()
    skipped: list[str] = []
    unreadable: list[OSError] = []
    for top, folders, names in os.walk(folder, onerror=unreadable.append):
        below = Path(top).relative_to(folder)
        inside = {name: (below / name).as_posix() for name in folders + names}
        # Whether Python has cached its bytecode says nothing about the source.
        folders[:] = [name for name in folders if name != "__pycache__"]
        skipped += [inside[name] for name in folders if skip(inside[name])]
        folders[:] = [name for name in folders if not skip(inside[name])]
        for name in names:
            path = Path(top, name)
            why = refuse(inside[name])
            if why is None and not links_out and _leads_out(path, folder):
                why = "links out of the folder"
            read = why or _content(path)
            if isinstance(read, bytes):
                files.append(SourceFile(inside[name], read))
            else:
                left_out[read] += 1
    skipped += [str(error.filename) for error in unreadable]
    if not files:
        raise DataError(_nothing(folder, left_out, sorted(skipped), usable))
    files.sort(key=lambda file: file.name)
    return Source(files, dict(sorted(left_out.items())), sorted(skipped))


def has_source_suffix(name: str) -> bool:
    """Whether a file's name ends as source code does."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _content(path: Path) -> bytes | str:
    """The file's bytes, or why they cannot be used."""
    try:
        if not path.is_file():  # a pipe would block, a broken link has nothing
            return "not regular files"
        if path.stat().st_size > MAX_BYTES:
            return TOO_LARGE
        content = read_bytes(path, MAX_BYTES)
    except (OSError, UsageError):
        return "not readable"
    return usable(content)


def _leads_out(path: Path, folder: Path) -> bool:
    """Whether a link leads to a file that is not in the folder."""
    if not path.is_symlink():
        return False
    try:
        return not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        return False


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


def _nothing(
    folder: Path, left_out: Counter[str], skipped: list[str], usable: str
) -> str:
    why = [f"{count} {reason}" for reason, count in sorted(left_out.items())]
    if skipped:
        why.append(f"{len(skipped)} folders not looked into ({', '.join(skipped[:3])})")
    return (
        f"no usable source code in {str(folder)!r}: {left_out.total()} files seen"
        f"{''.join(f', {reason}' for reason in why)}; usable are {usable}"
    )
