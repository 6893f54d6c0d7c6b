"""CodeSearchNet's functions as source files, for a search to read.

    python experiments/code-medium/unpack.py python/final/jsonl codesearchnet

The first folder is of the challenge's python.zip (Husain et al. 2019,
arXiv:1909.09436): lines of JSON, gzipped, a function each, with the repository and
the path that it stands in. Functions of one file are written into one file again; the
challenge's own split is left out of account, for a search splits by file.
"""

import argparse
import gzip
import hashlib
import json
from pathlib import Path

from jaxnas.errors import UsageError

FIELDS = ("repo", "path", "original_string")


def files_of(folder: Path) -> dict[tuple[str, str], list[str]]:
    """(repository, path) -> its functions, in the order of the lines.

    Raises:
      UsageError: there are none, or a line is of another form.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for part in sorted(folder.rglob("*.jsonl.gz")):
        with gzip.open(part, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    repo, path, code = (json.loads(line)[name] for name in FIELDS)
                except (ValueError, KeyError, TypeError):
                    raise UsageError(
                        f"{part}, line {number}: needs {', '.join(FIELDS)}"
                    ) from None
                found.setdefault((repo, path), []).append(code)
    if not found:
        raise UsageError(f"{folder} holds no .jsonl.gz")
    return found


def write(files: dict[tuple[str, str], list[str]], out: Path) -> None:
    """A file each, named by a hash, for a path of a stranger's is not to be trusted."""
    for (repo, path), functions in files.items():
        name = hashlib.sha256(f"{repo}/{path}".encode()).hexdigest()[:24]
        file = out / name[:2] / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n\n\n".join(functions) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with the .jsonl.gz files")
    parser.add_argument("out", type=Path, help="made if it is not there")
    given = parser.parse_args()
    files = files_of(given.folder)
    write(files, given.out)
    print(f"{len(files):,} files in {given.out}")


if __name__ == "__main__":
    main()
