"""Source code in published wheels, by name and version; none of it is imported.

A wheel is fetched by pip, which checks it against the index's hash, and kept in the
cache: the same names and versions give the same corpus for ever.
"""

import collections
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from jaxnas.data.sources import (
    MAX_BYTES,
    NO_SUFFIX,
    TOO_LARGE,
    DataError,
    Source,
    SourceFile,
    has_source_suffix,
    usable,
)
from jaxnas.storage.cache import in_cache
from jaxnas.storage.files import write_whole

_PINNED = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)"
)
_TOTAL = 2**31  # bytes of a wheel's files, at most
# Of any platform: what is looked for is source.
_PIP = ("download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir")


def read_wheels(names: str) -> Source:
    """The source files in wheels.

    Args:
      names: `NAME==VERSION`, several with commas.

    Raises:
      DataError: a name without a version, no such wheel, or no source in any.
    """
    files: list[SourceFile] = []
    left_out: collections.Counter[str] = collections.Counter()
    for name in names.split(","):
        match = _PINNED.fullmatch(name.strip())
        if match is None:
            raise DataError(
                f"pypi:{name.strip()!r} must be NAME==VERSION: other versions would "
                f"be another corpus"
            )
        wheel = _wheel(*match.groups())
        files += _source_in(name.strip(), wheel, left_out)
    if not files:
        raise DataError(f"no source code in pypi:{names}")
    files.sort(key=lambda file: file.name)
    return Source(files, dict(sorted(left_out.items())), [])


def _source_in(
    name: str, wheel: bytes, left_out: collections.Counter[str]
) -> list[SourceFile]:
    """The usable files; why the others are not is counted."""
    found = []
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _TOTAL:
                raise DataError(f"{name} unpacks to more than {_TOTAL:,} bytes")
            for member in members:
                if member.is_dir():
                    continue
                if not has_source_suffix(member.filename):
                    left_out[NO_SUFFIX] += 1
                elif member.file_size > MAX_BYTES:
                    left_out[TOO_LARGE] += 1
                else:
                    content = usable(archive.read(member))
                    if isinstance(content, bytes):
                        found.append(SourceFile(member.filename, content))
                    else:
                        left_out[content] += 1
    # The last two: a compression that Python lacks, a password.
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"cannot read the wheel of {name}: {error}") from None
    return found


def _wheel(name: str, version: str) -> bytes:
    """The wheel, from the cache or fetched into it."""
    key = hashlib.sha256(f"{name.lower()}=={version}".encode()).hexdigest()[:16]
    kept = in_cache("wheels", f"{name}-{version}-{key}.whl")
    if kept is not None and kept.is_file():
        return kept.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                *_PIP,
                "--dest",
                folder,
                f"{name}=={version}",
            ],
            capture_output=True,
            text=True,
        )
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode or len(found) != 1:
            said = [line for line in done.stderr.splitlines() if "ERROR" in line]
            reason = said[-1].removeprefix("ERROR: ") if said else "pip found none"
            raise DataError(f"cannot fetch {name}=={version}: {reason}")
        wheel = found[0].read_bytes()
    if kept is not None:
        write_whole(kept, wheel)
    return wheel
