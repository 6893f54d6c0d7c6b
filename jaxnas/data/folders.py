"""Files on the disk: the standard library, a folder of one's own, or one file."""

import fnmatch
import os
from collections.abc import Callable
from pathlib import Path

from jaxnas.data.rows import holds_rows, read_table
from jaxnas.data.sources import (
    MAX_BYTES,
    NO_SUFFIX,
    SUFFIXES,
    Collected,
    DataError,
    Source,
    has_source_suffix,
    too_large,
    usable,
)
from jaxnas.errors import UsageError
from jaxnas.storage.inputs import LINES_BYTES, read_bytes

_LICENCES = ("licence", "license", "copying", "unlicense")

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
    return _read(folder, skip, refuse, usable, _plain, links_out=True)


def read_folder(
    folder: Path,
    include: tuple[str, ...] = (),
    field: str | None = None,
    largest: int = MAX_BYTES,
) -> Source:
    """Reads a folder of source code, recursively, without following folder links.

    Args:
      folder: or a single file, of any suffix.
      include: patterns of what is read; none for all that ends as source code does.
      field: that holds the text of a row, where tables are read.
      largest: bytes of a file. One of more than `MAX_BYTES`, and a single file, is
        read in pieces, each of them a file that is split alone.

    Raises:
      DataError: it does not exist, or nothing in it can be used.
    """

    def skip(name: str) -> bool:
        last = name.rpartition("/")[2]
        return last.startswith(".") or last in SKIPPED_FOLDERS

    def refuse(name: str) -> str | None:
        if include:
            return None if matches(name, include) else f"not {' or '.join(include)}"
        return None if has_source_suffix(name) else NO_SUFFIX

    if folder.is_file():
        return _read_lone(folder, field)
    wanted = f"files ending in one of {' '.join(sorted(SUFFIXES))}"
    if include:
        wanted = f"files like {' or '.join(include)}"
    return _read(
        folder,
        skip,
        refuse,
        f"UTF-8 {wanted}; others by +include:*.md,*.jsonl",
        lambda path, name, into: read_file(path, name, field, into, largest),
    )


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path with forward slashes, or its last part, is like a pattern."""
    last = name.rpartition("/")[2]
    return any(
        fnmatch.fnmatchcase(name if "/" in pattern else last, pattern)
        for pattern in patterns
    )


def read_file(
    path: Path,
    name: str,
    field: str | None,
    into: Collected,
    largest: int = MAX_BYTES,
) -> None:
    """Reads a file: a table's rows, a text, or a long text's pieces.

    Raises:
      DataError: a table cannot be read.
    """
    if holds_rows(name) and path.is_file():
        read_table(path, name, field, into)
        return
    content = _content(path, largest)
    long = isinstance(content, bytes) and len(content) > MAX_BYTES
    (into.take_pieces if long else into.take)(name, content)


def _read_lone(path: Path, field: str | None) -> Source:
    found = Collected()
    if holds_rows(path.name):
        read_table(path, path.name, field, found)
    else:
        found.take_pieces(path.name, _content(path, LINES_BYTES))
    if not found.files:
        raise DataError(_nothing(path, found, [], "UTF-8 text, or rows of it"))
    return found.source([])


def _read(
    folder: Path,
    skip: Callable[[str], bool],
    refuse: Callable[[str], str | None],
    usable: str,
    read: Callable[[Path, str, Collected], None],
    links_out: bool = False,
) -> Source:
    """Reads what is left after `skip` (folders) and `refuse` (files, why).

    Files that links lead to count where they lie in the folder, and elsewhere if
    `links_out`.
    """
    if not folder.is_dir():
        raise DataError(f"data folder {str(folder)!r} does not exist")
    found = Collected()
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
            if why is None:
                read(path, inside[name], found)
            else:
                found.take(inside[name], why)
            if name.lower().startswith(_LICENCES) and not _leads_out(path, folder):
                found.licences.update(_title(path))
    skipped += [str(error.filename) for error in unreadable]
    if not found.files:
        raise DataError(_nothing(folder, found, sorted(skipped), usable))
    return found.source(sorted(skipped))


def _plain(path: Path, name: str, into: Collected) -> None:
    into.take(name, _content(path, MAX_BYTES))


def _title(path: Path) -> list[str]:
    """The first line of a licence's text, which is its name in the common ones."""
    content = _content(path, MAX_BYTES)
    if isinstance(content, str):
        return []
    lines = filter(None, map(str.strip, content.decode().splitlines()))
    return [line[:80] for line in lines][:1]


def _content(path: Path, most: int) -> bytes | str:
    """The file's bytes, or why they cannot be used."""
    try:
        if not path.is_file():  # a pipe would block, a broken link has nothing
            return "not regular files"
        if path.stat().st_size > most:
            return too_large(most)
        content = read_bytes(path, most)
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


def _nothing(folder: Path, found: Collected, skipped: list[str], usable: str) -> str:
    left_out = found.left_out
    why = [f"{count} {reason}" for reason, count in sorted(left_out.items())]
    if skipped:
        why.append(f"{len(skipped)} folders not looked into ({', '.join(skipped[:3])})")
    return (
        f"no usable source code in {str(folder)!r}: {left_out.total()} files seen"
        f"{''.join(f', {reason}' for reason in why)}; usable are {usable}"
    )
