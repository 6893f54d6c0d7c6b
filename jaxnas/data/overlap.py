"""Files that hold a benchmark's problems leave the training data.

A model that has read a problem's text or solution says nothing when it solves it.
Runs of tokens are compared (as in GPT-3, arXiv:2005.14165, section 4), a whole
problem's at a time: one run alone is often a common line.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnas.data.deduplicate import TOKEN, TokenHashes, shingles
from jaxnas.data.sources import DataError, SourceFile
from jaxnas.storage.inputs import JSON_BYTES, parse_json, read_unpacked
from jaxnas.storage.jsonl import Json

RUN = 10  # tokens
LEAST = 13  # tokens of a text that is looked for
SHARE = 0.5  # of a text's runs that make a file one that holds it


class Overlap(NamedTuple):
    """What is looked for: distinct runs of tokens of each text, hashed.

    Attributes:
      runs: u64[N], of one text after the other.
      starts: i64[T], where each text's begin.
      every: u64[M], sorted and distinct: of all texts.
    """

    runs: np.ndarray
    starts: np.ndarray
    every: np.ndarray


def without_overlap(
    files: Iterable[SourceFile], overlap: Overlap
) -> tuple[list[SourceFile], int]:
    """Files that hold no text, and how many do."""
    files = list(files)
    hashes = TokenHashes()
    kept = [file for file in files if not _holds(file, overlap, hashes)]
    return kept, len(files) - len(kept)


def _holds(file: SourceFile, overlap: Overlap, hashes: TokenHashes) -> bool:
    runs = shingles(file.content, hashes, RUN)
    if not np.isin(runs, overlap.every, assume_unique=True).any():
        return False
    hits = np.isin(overlap.runs, runs).astype(float)
    sizes = np.diff([*overlap.starts, overlap.runs.size])
    return bool((np.add.reduceat(hits, overlap.starts) >= SHARE * sizes).any())


def overlap_with(paths: Iterable[Path]) -> Overlap:
    """What HumanEval's and MBPP's files hold.

    Raises:
      DataError: a file cannot be read, or is another one.
    """
    hashes = TokenHashes()
    found = [
        shingles(text.encode(), hashes, RUN)
        for path in paths
        for row in read_rows(path)
        for text in _texts(row, path)
        if len(TOKEN.findall(text.encode())) >= LEAST
    ]
    if not found:
        raise DataError("no benchmark's text is long enough to be looked for")
    starts = np.cumsum([0, *(one.size for one in found[:-1])])
    runs = np.concatenate(found)
    return Overlap(runs, starts, np.unique(runs))


def read_rows(path: Path) -> list[Json]:
    """A benchmark's problems: JSON, or a line of JSON each, compressed or not.

    Raises:
      UsageError: the file cannot be read, or holds something else.
    """
    raw = read_unpacked(path, JSON_BYTES)
    try:
        text = raw.decode()
        whole = text.lstrip().startswith("[")
        rows = parse_json(text) if whole else list(map(parse_json, text.splitlines()))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} holds no problem")
    return rows


def _texts(row: Json, path: Path) -> Iterator[str]:
    """A problem's text, and its solution as a function without what explains it.

    Not the body alone: Euclid's algorithm is in many files.
    """
    try:
        task = str(row["text"] if "text" in row else row["prompt"])
        own = "canonical_solution" in row
        code = task + row["canonical_solution"] if own else row["code"]
        yield task
        yield _without_docstrings(code)
    except (KeyError, TypeError, SyntaxError) as error:
        raise DataError(f"{path} is not HumanEval's or MBPP's file ({error})") from None


def parsed(code: str) -> ast.Module:
    """The tree of code that is not ours: what it is warned of does not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def _without_docstrings(code: str) -> str:
    lines: list[str] = code.splitlines()
    for node in ast.walk(parsed(code)):
        match node:
            case ast.FunctionDef(
                body=[ast.Expr(value=ast.Constant(value=str())) as text, *_]
            ):
                for number in range(text.lineno - 1, text.end_lineno or text.lineno):
                    lines[number] = ""
    return "\n".join(lines)
