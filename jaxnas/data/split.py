"""Training, validation and test files, decided by each file's content alone."""

from collections.abc import Iterable

from jaxnas.data.sources import SourceFile

SPLITS = ("train", "validation", "test")
TENTHS = (8, 1, 1)  # of all contents


def split_of(sha256: str) -> str:
    """The split of the content with this hash (hex): the same for ever.

    It reads the hash's last 64 bits. Deduplication keeps the lowest of several
    hashes, so the first bits of what is kept are not uniform: splitting by them
    would send files that had duplicates to one side.
    """
    tenth = int(sha256[-16:], 16) * sum(TENTHS) >> 64
    return next(name for i, name in enumerate(SPLITS) if tenth < sum(TENTHS[: i + 1]))


def split(files: Iterable[SourceFile]) -> dict[str, list[SourceFile]]:
    """Divides files into SPLITS; each keeps the order the files came in."""
    parts: dict[str, list[SourceFile]] = {name: [] for name in SPLITS}
    for file in files:
        parts[split_of(file.sha256)].append(file)
    return parts
