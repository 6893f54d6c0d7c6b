"""Source code in published wheels, by name and version; none of it is imported.

A wheel is fetched by pip, which checks it against the index's hash, and kept in the
cache: the same names and versions give the same corpus for ever.
"""

import email.parser
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
    Collected,
    DataError,
    Source,
    has_source_suffix,
    too_large,
    usable,
)
from jaxnas.storage.cache import in_cache
from jaxnas.storage.files import write_whole

_PINNED = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)"
)
# What `corpus` stands for: 59 MB of permissively licensed source.
CORPUS = (
    "sympy==1.14.0,sqlalchemy==2.1.9,mypy==2.4.1,twisted==26.10.0,django==5.2.19,"
    "nltk==3.10.4,pygments==2.21.0,networkx==3.6.1,sphinx==9.0.4"
)
_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
_TOTAL = 2**31  # bytes of a wheel's files, at most
# Of any platform: what is looked for is source.
_PIP = ("download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir")


def read_wheels(names: str) -> Source:
    """The source files in wheels.

    Args:
      names: `NAME==VERSION`, several with commas; or `corpus`, for `CORPUS`.

    Raises:
      DataError: a name without a version, no such wheel, or no source in any.
    """
    found = Collected()
    for name in (CORPUS if names == "corpus" else names).split(","):
        match = _PINNED.fullmatch(name.strip())
        if match is None:
            raise DataError(
                f"pypi:{name.strip()!r} must be NAME==VERSION: other versions would "
                f"be another corpus"
            )
        wheel = _wheel(*match.groups())
        _read_wheel(name.strip(), wheel, found)
    if not found.files:
        raise DataError(f"no source code in pypi:{names}")
    return found.source([])


def _read_wheel(name: str, wheel: bytes, into: Collected) -> None:
    """The usable files, why the others are not, and what it says of its licence."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _TOTAL:
                raise DataError(f"{name} unpacks to more than {_TOTAL:,} bytes")
            for member in members:
                if member.is_dir():
                    continue
                if _METADATA.fullmatch(member.filename):
                    into.licences.update(_licence(archive.read(member)))
                if not has_source_suffix(member.filename):
                    into.take(member.filename, NO_SUFFIX)
                elif member.file_size > MAX_BYTES:
                    into.take(member.filename, too_large(MAX_BYTES))
                else:
                    into.take(member.filename, usable(archive.read(member)))
    # The last two: a compression that Python lacks, a password.
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"cannot read the wheel of {name}: {error}") from None


def _licence(metadata: bytes) -> list[str]:
    """A wheel's licence, by the first of the fields that say it."""
    head = email.parser.BytesHeaderParser().parsebytes(metadata)
    classifiers = head.get_all("Classifier", [])
    named = [one for one in classifiers if one.startswith("License ::")]
    said = [head["License-Expression"], *named[:1], head["License"]]
    return [str(one).split("\n")[0][:80] for one in said if one][:1]


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
