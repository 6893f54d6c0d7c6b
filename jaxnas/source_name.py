"""What the name of a source says; nothing is read here."""

import dataclasses
import re
from pathlib import Path

from jaxnas.errors import UsageError
from jaxnas.storage.inputs import LINES_BYTES, user_path

WITHOUT = "+without:"  # in front of the files of benchmarks, with commas
_MEGABYTE = 10**6

# Options behind a source's name, in the order in which they are written.
_OPTIONS = ("include", "field", "largest", "without")
_OPTION = re.compile(rf"\+({'|'.join(_OPTIONS)}):")
# Those of each kind.
_TAKES = {
    "stdlib": ("without",),
    "pypi": ("without",),
    "folder": _OPTIONS,
    "parquet": ("include", "field", "without"),
    "hf": ("include", "field", "without"),
}
_PATHS = ("folder", "parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceName:
    """A source by its name, and what is taken of it.

    Attributes:
      source: without its options.
      include: patterns of file names; none for those that are code.
      field: of a row, that holds its text; None for the first of `TEXT_FIELDS`.
      largest: bytes of a file that is read whole or in pieces; None for the default.
      without: files of benchmarks.
    """

    source: str
    include: tuple[str, ...] = ()
    field: str | None = None
    largest: int | None = None
    without: tuple[Path, ...] = ()

    @property
    def kind(self) -> str:
        """What stands in front of the colon."""
        return self.source.partition(":")[0]

    @property
    def rest(self) -> str:
        """What stands behind it."""
        return self.source.partition(":")[2]

    def __str__(self) -> str:
        parts = {
            "include": ",".join(self.include),
            "field": self.field,
            "largest": self.largest,
            "without": ",".join(map(str, self.without)),
        }
        return self.source + "".join(f"+{k}:{v}" for k, v in parts.items() if v)


def source_name(spec: str) -> SourceName:
    """Reads a name with its options: `folder:PATH+include:*.py,*.md`.

    Raises:
      UsageError: an option is empty, there twice, or none of the source's.
    """
    source, *parts = _OPTION.split(spec)
    found: dict[str, str] = {}
    for option, value in zip(parts[::2], parts[1::2], strict=True):
        if not all(value.split(",")):
            raise UsageError(f"{spec!r} names nothing behind +{option}:")
        if option in found:
            raise UsageError(f"{spec!r} has +{option}: twice: write commas instead")
        found[option] = value
    allowed = _TAKES.get(source.partition(":")[0], _OPTIONS)
    if wrong := [option for option in found if option not in allowed]:
        known = ", ".join(f"+{option}:" for option in allowed)
        raise UsageError(f"{spec!r}: no +{wrong[0]}: for this source, only {known}")
    return SourceName(
        source=source,
        include=_listed(found.get("include")),
        field=found.get("field"),
        largest=_size(spec, found["largest"]) if "largest" in found else None,
        without=tuple(map(user_path, _listed(found.get("without")))),
    )


def _listed(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(text.split(","))


def _size(spec: str, text: str) -> int:
    """Bytes: 4000000, or 4mb."""
    match = re.fullmatch(r"(\d{1,12})(mb)?", text.lower())
    size = int(match[1]) * (_MEGABYTE if match[2] else 1) if match else 0
    if not 1 <= size <= LINES_BYTES:
        raise UsageError(
            f"{spec!r}: +largest:{text} must be bytes or megabytes (4mb), at most "
            f"{LINES_BYTES:,} bytes"
        )
    return size


def anchored_source(spec: str) -> str:
    """The name with its paths absolute, if it has any."""
    name = source_name(spec)
    if name.kind in _PATHS and name.rest:
        path = user_path(name.rest).resolve()
        name = dataclasses.replace(name, source=f"{name.kind}:{path}")
    without = tuple(path.resolve() for path in name.without)
    return str(dataclasses.replace(name, without=without))
