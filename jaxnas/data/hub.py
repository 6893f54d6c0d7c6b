"""Data sets of the Hugging Face hub, by name and commit.

The files of a commit never change, and their list is kept in the cache: the same
name and commit give the same corpus for ever, also without a network.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path

from jaxnas.data.folders import matches, read_file
from jaxnas.data.rows import SUFFIXES
from jaxnas.data.sources import Collected, DataError, Source
from jaxnas.storage.cache import in_cache
from jaxnas.storage.files import write_whole
from jaxnas.storage.inputs import LINES_BYTES, read_json, read_text

_PACKAGE = "huggingface_hub"
_NAMED = re.compile(r"((?:[\w.-]{1,96}/)?[\w.-]{1,96})@([0-9a-f]{40})")
# Names that data sets are known by: a copy that needs no script.
ALIASES = {"codesearchnet": "claudios/code_search_net"}
_TABLES = tuple(f"*{suffix}" for suffix in SUFFIXES)
_CARD = "README.md"


def read_hub(rest: str, include: tuple[str, ...], field: str | None) -> Source:
    """Reads the tables of a data set, or what the patterns name.

    Args:
      rest: `NAME@COMMIT`, the commit in 40 hex digits.
      include: patterns of file names; none for every .parquet, .jsonl, .jsonl.gz.
      field: that holds a row's text.

    Raises:
      DataError: no commit, no such data set, nothing in it, or it is too large.
    """
    match = _NAMED.fullmatch(rest)
    if match is None:
        raise DataError(
            f"hf:{rest} must be NAME@COMMIT, the commit in 40 hex digits: a branch "
            f"would be another corpus tomorrow"
        )
    name, commit = ALIASES.get(match[1].lower(), match[1]), match[2]
    if importlib.util.find_spec(_PACKAGE) is None:
        raise DataError(f"hf: needs the package {_PACKAGE}: pip install 'jaxnas[hf]'")
    there = _listed(name, commit)
    wanted = [file for file in sorted(there) if matches(file, include or _TABLES)]
    if not wanted:
        few = ", ".join(sorted(there)[:5])
        raise DataError(
            f"hf:{rest} has no file like {', '.join(include or _TABLES)}: it has {few}"
        )
    if (size := sum(there[file] for file in wanted)) > LINES_BYTES:
        raise DataError(
            f"hf:{rest} is {size:,} bytes, at most {LINES_BYTES:,} are read: name "
            f"some of its {len(wanted)} files by +include:PATTERN"
        )
    found = Collected()
    for file in wanted:
        read_file(_fetched(name, commit, file), file, field, found)
    if _CARD in there:
        found.licences.update(_licences(_fetched(name, commit, _CARD)))
    if not found.files:
        why = ", ".join(f"{n} {reason}" for reason, n in found.left_out.items())
        raise DataError(f"no usable text in hf:{rest}: {why or 'no rows'}")
    return found.source([])


def _listed(name: str, commit: str) -> Mapping[str, int]:
    """File -> bytes, from the cache or the hub."""
    key = hashlib.sha256(f"{name}@{commit}".encode()).hexdigest()[:16]
    kept = in_cache("hub", f"{key}.json")
    if kept is not None and kept.is_file():
        return read_json(kept)
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().dataset_info(
            name, revision=commit, files_metadata=True
        )
    except Exception as error:  # of the library, of its transport, of the network
        raise _unreached(f"{name}@{commit}", error) from None
    found = {file.rfilename: file.size or 0 for file in info.siblings or []}
    if kept is not None:
        write_whole(kept, json.dumps(found))
    return found


def _fetched(name: str, commit: str, file: str) -> Path:
    """The file in the hub's own cache, fetched into it where it is not there."""
    import huggingface_hub

    try:
        path = huggingface_hub.hf_hub_download(
            name, file, repo_type="dataset", revision=commit
        )
    except Exception as error:  # of the library, of its transport, of the network
        raise _unreached(f"{file} of {name}@{commit}", error) from None
    return Path(path)


def _unreached(what: str, error: Exception) -> DataError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"cannot fetch {what} from the hub: {reason[:300]}")


def _licences(card: Path) -> list[str]:
    """What the front matter of a card calls its licence."""
    _, mark, rest = read_text(card).partition("---\n")
    front = rest.partition("\n---")[0] if mark else ""
    return re.findall(r"^license(?:_name)?:[ \t]*(\S.{0,79})$", front, re.MULTILINE)
