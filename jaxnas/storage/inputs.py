"""The gate for what is read from the disk: size, kind of file, nesting, numbers.

Whatever stands in a file, reading it takes bounded time and memory and ends in a
value or in one line. What the values mean is checked by those who asked for them.
"""

import contextlib
import errno
import gzip
import io
import json
import math
import os
import stat
import tomllib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from jaxnas.errors import UsageError

SETTINGS_BYTES = 2**20  # of a TOML file, or one of a folder's facts
JSON_BYTES = 2**27  # of a tokenizer, a summary, an index of shards
LINES_BYTES = 2**31  # of a file of lines
MODEL_BYTES = 2**40  # of weights
_LARGEST = 10**300  # of a JSON integer


def read_bytes(path: Path, most: int) -> bytes:
    """A whole file, if it is one and holds at most so many bytes.

    Never waits: a device, a FIFO or a socket is refused.

    Raises:
      UsageError: it cannot be read, is no regular file, or is larger.
    """
    with opened(path, most) as (file, size):
        try:
            # A growing file is read up to a little beyond what it was.
            return file.read(min(most, size + 2**16))
        except OSError as error:
            raise _unreadable(path, error) from None


def read_unpacked(path: Path, most: int) -> bytes:
    """`read_bytes`, decompressed if it is gzip; so many bytes in the end, too.

    Raises:
      UsageError: as `read_bytes`, or it is damaged.
    """
    raw = read_bytes(path, most)
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        with gzip.open(io.BytesIO(raw)) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if len(content) > most:
        raise UsageError(f"{path} unpacks to more than {most:,} bytes")
    return content


@contextlib.contextmanager
def opened(path: Path, most: int) -> Iterator[tuple[BinaryIO, int]]:
    """An open file and its size, after the checks of `read_bytes`."""
    try:
        # O_NONBLOCK: the other end of a FIFO may never come.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # the latter: a NUL in the name
        raise _unreadable(path, error) from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        os.close(handle)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"cannot read {path}: {os.strerror(errno.EISDIR)}")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"cannot read {path}: it is no regular file")
        raise UsageError(
            f"{path} holds {status.st_size:,} bytes: at most {most:,} are read"
        )
    with os.fdopen(handle, "rb") as file:
        yield file, status.st_size


def user_path(text: str) -> Path:
    """A path that may begin with ~ or ~user.

    Raises:
      UsageError: there is no such user, or a NUL in it.
    """
    if "\0" in text:
        raise UsageError(f"{text!r} is no path: it holds a NUL")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: there is no such user, or no home") from None


# What the system says of a name that nothing can be at.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def is_file(path: Path) -> bool:
    """Whether a regular file is there.

    Raises:
      UsageError: the system does not say, for a folder above is closed.
    """
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Whether a folder is there; errors as for `is_file`."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """Of what is there; 0 if nothing is, or can be."""
    try:
        return path.stat().st_mode
    except ValueError:  # a NUL in the name
        return 0
    except OSError as error:
        if error.errno in _ABSENT:
            return 0
        raise _unreadable(path, error) from None


def regular_file(path: Path, most: int = MODEL_BYTES) -> Path:
    """The path, for a library that opens it itself; errors as for `read_bytes`."""
    with opened(path, most):
        return path


def read_text(path: Path, most: int = SETTINGS_BYTES) -> str:
    """A file as text; arguments and errors as for `read_bytes`.

    A byte-order mark, which editors on Windows write, is left out.

    Raises:
      UsageError: it is not UTF-8, too.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """A JSON value of finite numbers.

    Raises:
      ValueError: it is none, in one line.
    """
    try:
        return json.loads(
            text, parse_float=_finite, parse_int=_whole, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """The value of a JSON file; arguments and errors as for `read_text`."""
    return _parsed(path, read_text(path, most), parse_json, "JSON")


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
      UsageError: it cannot be read, or is not TOML.
    """
    return parse_toml(read_text(path), path)


def parse_toml(text: str, where: object) -> dict[str, Any]:
    """The values of TOML; an error says where it stands.

    Raises:
      UsageError: it is not TOML.
    """
    return _parsed(where, text, tomllib.loads, "TOML")


def _parsed(where: object, text: str, parse: Callable[[str], Any], kind: str) -> Any:
    try:
        return parse(text)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error).splitlines()[0][:200]
        if reason.startswith("Exceeds the limit"):  # Python's, of ints in decimals
            reason = "it holds a number of thousands of digits"
    raise UsageError(f"{where} is not {kind}: {reason}")


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
    )


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _whole(text: str) -> int:
    """An integer that a float can hold, about: others meet floats in a division."""
    value = int(text)
    return value if abs(value) < _LARGEST else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no finite number")
