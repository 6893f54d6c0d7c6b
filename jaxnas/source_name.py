"""What the name of a source says; nothing is read here."""

from pathlib import Path

from jaxnas.errors import UsageError
from jaxnas.storage.inputs import user_path

WITHOUT = "+without:"  # in front of the files of benchmarks, with commas


def split_spec(spec: str) -> tuple[str, list[Path]]:
    """A source, and the benchmarks that it is to be without.

    Raises:
      UsageError: no file is named where there should be.
    """
    source, mark, paths = spec.partition(WITHOUT)
    if mark and not all(paths.split(",")):
        raise UsageError(f"{spec!r} names no file behind {WITHOUT}")
    return source, [user_path(one) for one in paths.split(",") if one]


def anchored_source(spec: str) -> str:
    """The source with its paths absolute, if it has any."""
    source, paths = split_spec(spec)
    kind, _, folder = source.partition(":")
    if kind == "folder" and folder:
        source = f"folder:{user_path(folder).resolve()}"
    found = ",".join(str(path.resolve()) for path in paths)
    return f"{source}{WITHOUT}{found}" if paths else source
