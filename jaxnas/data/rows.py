"""Tables of texts: a line of JSON each (.jsonl, .jsonl.gz), or Parquet."""

import gzip
import importlib.util
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jaxnas.data.sources import MAX_BYTES, Collected, DataError, too_large, usable
from jaxnas.storage.inputs import LINES_BYTES, opened, parse_json

if TYPE_CHECKING:
    import pyarrow.parquet

# What holds a row's text, the first that there is; the fourth and fifth are
# CodeSearchNet's (arXiv:1909.09436).
TEXT_FIELDS = ("content", "text", "code", "whole_func_string", "original_string")
LICENCE_FIELDS = ("license", "licenses", "max_stars_repo_licenses")
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
MAX_ROW = 2**26  # bytes of a line
_BATCH = 256  # rows of Parquet at a time


def holds_rows(name: str) -> bool:
    """Whether a file's name is that of a table."""
    return name.lower().endswith(SUFFIXES)


def read_table(path: Path, name: str, field: str | None, into: Collected) -> None:
    """Reads each row's text as a file of its own.

    Args:
      path: of the table.
      name: what its files' names begin with.
      field: that holds the text; None for the first of `TEXT_FIELDS`.
      into: gets the files and the licences that the rows name.

    Raises:
      DataError: it cannot be read, or no field of it holds texts.
    """
    rows = _parquet if path.suffix.lower() == ".parquet" else _lines
    for number, row in rows(path, field):
        text, licences = row
        into.take(f"{name}:{number}", _content(text))
        into.licences.update(licences)


def _content(text: Any) -> bytes | str:
    if not isinstance(text, str | bytes):
        return "rows without a text"
    try:
        content = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:  # half of a pair
        return "not UTF-8"
    return usable(content) if len(content) <= MAX_BYTES else too_large(MAX_BYTES)


def _lines(path: Path, field: str | None) -> Iterator[tuple[int, tuple]]:
    for number, line in _raw_lines(path):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:  # not UTF-8, too
            reason = str(error).splitlines()[0][:200]
            raise DataError(f"{path}, line {number}, is no JSON: {reason}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}, is no JSON object")
        field = field if field in row else _text_field(path, list(row), field)
        licences = next((row[name] for name in LICENCE_FIELDS if name in row), None)
        yield number, (row.get(field), _spelled(licences))


def _text_field(path: Path, there: list[str], wanted: str | None) -> str:
    """The field that holds the text."""
    wished = TEXT_FIELDS if wanted is None else (wanted,)
    for name in wished:
        if name in there:
            return name
    raise DataError(
        f"{path} has no field {' or '.join(wished)}: it has {', '.join(there)[:200]}; "
        f"name the one with the text by +field:NAME"
    )


def _spelled(licences: Any) -> list[str]:
    """A row's licences, each of them a short line."""
    listed = licences if isinstance(licences, list) else [licences]
    return [one[:80] for one in listed if isinstance(one, str) and one]


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that may be compressed, numbered from 1."""
    size = 0
    with opened(path, LINES_BYTES) as (file, _):
        stream: BinaryIO | gzip.GzipFile = file
        if path.suffix.lower() == ".gz":
            stream = gzip.GzipFile(fileobj=file)
        for number in itertools.count(1):
            try:
                line = stream.readline(MAX_ROW + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"cannot read {path}: {error}") from None
            size += len(line)
            if len(line) > MAX_ROW:
                raise DataError(f"{path}, line {number}, has over {MAX_ROW:,} bytes")
            if size > LINES_BYTES:
                raise DataError(f"{path} unpacks to more than {LINES_BYTES:,} bytes")
            if not line:
                return
            yield number, line


def _parquet(path: Path, field: str | None) -> Iterator[tuple[int, tuple]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            f"{path.name} needs the package pyarrow: pip install 'jaxnas[parquet]'"
        )
    import pyarrow as pa
    import pyarrow.parquet

    with opened(path, LINES_BYTES) as (file, _):
        try:
            table = pyarrow.parquet.ParquetFile(file)
            there = table.schema_arrow.names
            field = _text_field(path, there, field)
            _check_column(path, table, field)
            licence = next((name for name in LICENCE_FIELDS if name in there), None)
            columns = [field] if licence is None else [field, licence]
            rows = itertools.count(1)
            for batch in table.iter_batches(_BATCH, columns=columns):
                texts = batch.column(field).to_pylist()
                named = batch.column(licence).to_pylist() if licence else texts
                for text, said in zip(texts, named, strict=True):
                    yield next(rows), (text, _spelled(said) if licence else [])
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"cannot read {path}: {reason[:200]}") from None


def _check_column(path: Path, table: "pyarrow.parquet.ParquetFile", field: str) -> None:
    """Raises a DataError for a column of no texts, or of too many."""
    kind = str(table.schema_arrow.field(field).type)
    if kind not in ("string", "large_string", "string_view", "binary", "large_binary"):
        raise DataError(f"{path}: the field {field} is of {kind}, not of texts")
    groups = (table.metadata.row_group(n) for n in range(table.num_row_groups))
    size = sum(
        column.total_uncompressed_size
        for group in groups
        for column in map(group.column, range(group.num_columns))
        if column.path_in_schema == field
    )
    if size > LINES_BYTES:
        raise DataError(f"{path}: {field} holds more than {LINES_BYTES:,} bytes")
