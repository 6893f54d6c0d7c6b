"""A source of code by its name."""

import sysconfig
from pathlib import Path

from jaxnas.data.overlap import overlap_with, without_overlap
from jaxnas.data.sources import DataError, Source, read_folder, read_stdlib
from jaxnas.data.wheels import read_wheels
from jaxnas.source_name import WITHOUT, split_spec
from jaxnas.storage.inputs import user_path


def read_source(spec: str) -> Source:
    """Reads `"stdlib"`, `"folder:PATH"` or `"pypi:NAME==VERSION,..."`.

    Each can end in `"+without:PATH,..."`, files of HumanEval or MBPP: what overlaps
    with a problem in them is left out, and counted.

    Raises:
      DataError: no such source, or nothing in it can be used.
    """
    spec, paths = split_spec(spec)
    source = _read_source(spec)
    if not paths:
        return source
    kept, dropped = without_overlap(source.files, overlap_with(paths))
    if not kept:
        raise DataError(f"every file of {spec!r} overlaps with the benchmarks")
    names = " or ".join(path.name for path in paths)
    return source._replace(
        files=kept, left_out=source.left_out | {f"overlapping with {names}": dropped}
    )


def _read_source(spec: str) -> Source:
    if spec == "stdlib":
        return read_stdlib(Path(sysconfig.get_paths()["stdlib"]))
    kind, _, path = spec.partition(":")
    if kind == "folder" and path:
        return read_folder(user_path(path))
    if kind == "pypi" and path:
        return read_wheels(path)
    raise DataError(
        f'unknown data source {spec!r}: give "stdlib" (the standard library of this'
        ' Python), "folder:PATH" (a folder of source code) or "pypi:NAME==VERSION,..."'
        f' (the source in these wheels), each with "{WITHOUT}PATH,..." behind it or not'
    )
