"""A source of code by its name."""

import sysconfig
from pathlib import Path

from jaxnas.data.sources import DataError, Source, read_folder, read_stdlib
from jaxnas.data.wheels import read_wheels
from jaxnas.storage.inputs import user_path


def read_source(spec: str) -> Source:
    """Reads `"stdlib"`, `"folder:PATH"` or `"pypi:NAME==VERSION,..."`.

    Raises:
      DataError: no such source, or nothing in it can be used.
    """
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
        " (the source in these wheels)"
    )
