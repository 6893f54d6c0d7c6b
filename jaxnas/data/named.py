"""Sources of code by their names."""

import dataclasses
import sysconfig
from collections import Counter
from pathlib import Path

from jaxnas.data.folders import read_folder, read_stdlib
from jaxnas.data.hub import read_hub
from jaxnas.data.overlap import overlap_with, without_overlap
from jaxnas.data.sources import MAX_BYTES, DataError, Source, SourceFile
from jaxnas.data.wheels import read_wheels
from jaxnas.source_name import SourceName, source_names
from jaxnas.storage.inputs import LINES_BYTES, user_path


def read_source(spec: str) -> Source:
    """Reads a source by its name, or several as one.

    Args:
      spec: `"stdlib"`, `"folder:PATH"`, `"parquet:PATH"`, `"hf:NAME@COMMIT"` or
        `"pypi:NAME==VERSION,..."`, with options behind it (`jaxnas.source_name`):
        what to include, a row's field, how large files are, benchmarks whose
        problems are left out, and counted, and how often it is read; or several of
        these with semicolons between.

    Raises:
      DataError: no such source, or nothing in it can be used.
    """
    names = source_names(spec)
    if len(names) == 1:
        return _read_one(names[0])
    files: list[SourceFile] = []
    left_out, licences = Counter[str](), Counter[str]()
    skipped: list[str] = []
    for name in names:
        own = _read_one(name)
        files += (
            dataclasses.replace(file, name=f"{name.source}/{file.name}")
            for file in own.files
        )
        left_out.update(own.left_out)
        licences.update(own.licences)
        skipped += (f"{name.source}/{folder}" for folder in own.skipped_folders)
        if sum(len(file.content) for file in files) > LINES_BYTES:
            raise DataError(
                f"the sources are larger than {LINES_BYTES:,} bytes: take less"
            )
    files.sort(key=lambda file: file.name)
    return Source(files, dict(left_out), sorted(skipped), dict(licences))


def _read_one(name: SourceName) -> Source:
    source = _read_source(name)
    if name.weight != 1:
        weighted = (
            dataclasses.replace(file, weight=name.weight) for file in source.files
        )
        source = source._replace(files=list(weighted))
    if not name.without:
        return source
    kept, dropped = without_overlap(source.files, overlap_with(name.without))
    if not kept:
        raise DataError(f"every file of {name.source!r} overlaps with the benchmarks")
    names = " or ".join(path.name for path in name.without)
    return source._replace(
        files=kept, left_out=source.left_out | {f"overlapping with {names}": dropped}
    )


def _read_source(name: SourceName) -> Source:
    include, field = name.include, name.field
    match (name.kind, name.rest):
        case ("stdlib", ""):
            return read_stdlib(Path(sysconfig.get_paths()["stdlib"]))
        case ("folder", path) if path:
            return read_folder(
                user_path(path), include, field, name.largest or MAX_BYTES
            )
        case ("parquet", path) if path:
            return read_folder(user_path(path), include or ("*.parquet",), field)
        case ("hf", rest) if rest:
            return read_hub(rest, include, field)
        case ("pypi", names) if names:
            return read_wheels(names)
    raise DataError(
        f'unknown data source {name.source!r}: give "stdlib" (the standard library of '
        'this Python), "folder:PATH" (your code, or one file), "parquet:PATH", '
        '"hf:NAME@COMMIT" (a data set) or "pypi:NAME==VERSION,..." (the source in '
        "these wheels), with options such as +include:*.py or not"
    )
