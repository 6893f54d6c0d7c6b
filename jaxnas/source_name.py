"""What the name of a source says; nothing is read here."""

import dataclasses
import re
from pathlib import Path

from jaxnas.errors import UsageError
from jaxnas.storage.inputs import LINES_BYTES, user_path

WITHOUT = "+without:"  # in front of the files of benchmarks, with commas
_MEGABYTE = 10**6

# Options behind a source's name, in the order in which they are written.
_OPTIONS = ("include", "field", "largest", "without", "weight")
_OPTION = re.compile(rf"\+({'|'.join(_OPTIONS)}):")
# Those of each kind.
_TAKES = {
    "stdlib": ("without", "weight"),
    "pypi": ("without", "weight"),
    "folder": _OPTIONS,
    "parquet": ("include", "field", "without", "weight"),
    "hf": ("include", "field", "without", "weight"),
}
_PATHS = ("folder", "parquet")
BETWEEN = ";"  # sources that are read together
_MOST_WEIGHT = 100.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceName:
    """A source by its name, and what is taken of it.

    Attributes:
      source: without its options.
      include: patterns of file names; none for those that are code.
      field: of a row, that holds its text; None for the first of `TEXT_FIELDS`.
      largest: bytes of a file that is read whole or in pieces; None for the default.
      without: files of benchmarks.
      weight: how often each of its training files is read; of one below 1 so many
        are read at all.
    """

    source: str
    include: tuple[str, ...] = ()
    field: str | None = None
    largest: int | None = None
    without: tuple[Path, ...] = ()
    weight: float = 1.0

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
            "weight": None if self.weight == 1 else _digits(self.weight),
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
        weight=_weight(spec, found["weight"]) if "weight" in found else 1.0,
    )


def _digits(weight: float) -> str:
    return f"{weight:.6f}".rstrip("0").rstrip(".")


def source_names(spec: str) -> list[SourceName]:
    """Reads the names of several sources, with semicolons between: at least one.

    Raises:
      UsageError: as `source_name`; or one of several is empty.
    """
    parts = [part.strip() for part in spec.split(BETWEEN)]
    if len(parts) > 1 and not all(parts):
        raise UsageError(f"{spec!r} names nothing on one side of a {BETWEEN!r}")
    return [source_name(part) for part in parts]


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


def _weight(spec: str, text: str) -> float:
    """A number in (0, 100]."""
    match = re.fullmatch(r"\d{1,3}(\.\d{1,6})?", text)
    weight = float(text) if match else 0.0
    if not 0 < weight <= _MOST_WEIGHT:
        raise UsageError(
            f"{spec!r}: +weight:{text} must be a number above 0, at most "
            f"{_MOST_WEIGHT:g}"
        )
    return weight


def anchored_source(spec: str) -> str:
    """The names with their paths absolute, if they have any."""
    return BETWEEN.join(str(_anchored(name)) for name in source_names(spec))


def source_without_folders(spec: str) -> str:
    """The names with the last part of their paths alone, for others to read.

    Raises:
      UsageError: as `source_names`.
    """
    return BETWEEN.join(str(_without_folders(name)) for name in source_names(spec))


def _without_folders(name: SourceName) -> SourceName:
    if name.kind in _PATHS and name.rest:
        last = user_path(name.rest).resolve().name
        name = dataclasses.replace(name, source=f"{name.kind}:{last}")
    without = tuple(Path(path.resolve().name) for path in name.without)
    return dataclasses.replace(name, without=without)


def _anchored(name: SourceName) -> SourceName:
    if name.kind in _PATHS and name.rest:
        path = user_path(name.rest).resolve()
        name = dataclasses.replace(name, source=f"{name.kind}:{path}")
    without = tuple(path.resolve() for path in name.without)
    return dataclasses.replace(name, without=without)
