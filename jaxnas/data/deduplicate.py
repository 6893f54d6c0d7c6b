"""Near-duplicate files go before anything is held out.

Duplicates across the split can inflate a code model's reported scores by up to
100 % (Allamanis 2019, arXiv:1812.06469), and web corpora hold enough of them to
touch over 4 % of a validation set (Lee et al. 2021, arXiv:2107.06499).
"""

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxnas.data.sources import SourceFile

THRESHOLD = 0.8  # Jaccard similarity of the sets of shingles, inclusive
SHINGLE = 5  # tokens

# A pair at the threshold shares one of 32 bands of 4 hashes with probability
# 1 - (1 - 0.8 ** 4) ** 32 > 1 - 1e-7, and 0.6 of its 128 hashes with about the
# same. Less similar pairs come up too, so each pair that passes both is compared
# exactly: bands and hashes decide the speed, not the outcome.
BANDS, ROWS = 32, 4
LIKELY = 0.6
BATCH = 8_192  # shingles hashed at a time: a few MB of hash values

# Words and single marks; white space does not count. Bytes above ASCII are word
# characters, so the tokens don't depend on a Unicode version.
TOKEN = re.compile(rb"[0-9A-Za-z_\x80-\xff]+|[^\s0-9A-Za-z_\x80-\xff]")


class Deduplicated(NamedTuple):
    """What is left of some files, and how many are not."""

    kept: list[SourceFile]  # in the order of their content hashes
    exact: int  # files dropped because another has the same bytes
    near: int  # files dropped because a kept one is this similar


def deduplicate(files: Iterable[SourceFile]) -> Deduplicated:
    """Keeps no two files of Jaccard similarity `THRESHOLD` or more.

    Of each group of duplicates the file with the lowest content hash stays, so
    neither the files' order nor their names matter. A file that is contained in
    a much longer one is not a near-duplicate by this measure.
    """
    from datasketch import MinHash, MinHashLSH  # it imports scipy: 0.5 s

    by_name = sorted(files, key=lambda file: file.name, reverse=True)
    by_name.sort(key=lambda file: file.weight)
    # Of equal files the one with the greatest weight stays, then the first name.
    unique = {file.sha256: file for file in by_name}
    order = sorted(unique)
    kept: dict[int, np.ndarray] = {}  # number in the order -> shingles
    hashes = TokenHashes()
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    empty = MinHash(num_perm=BANDS * ROWS, seed=1, hashfunc=int)
    sketches = np.zeros((len(order), BANDS * ROWS), empty.hashvalues.dtype)
    for number, sha256 in enumerate(order):
        own = shingles(unique[sha256].content, hashes)
        sketch = empty.copy()
        for start in range(0, own.size, BATCH):
            sketch.update_batch((own[start : start + BATCH] >> 32).tolist())
        sketches[number] = sketch.hashvalues
        near = np.array(index.query(sketch), int)
        near = near[(sketches[near] == sketches[number]).mean(axis=1) >= LIKELY]
        if not any(jaccard(own, kept[i]) >= THRESHOLD for i in near.tolist()):
            index.insert(number, sketch)
            kept[number] = own
    return Deduplicated(
        kept=[unique[order[number]] for number in kept],
        exact=len(by_name) - len(unique),
        near=len(unique) - len(kept),
    )


def similarity(one: bytes, other: bytes) -> float:
    """Jaccard similarity of two files' sets of token shingles, in [0, 1]."""
    hashes = TokenHashes()
    return jaccard(shingles(one, hashes), shingles(other, hashes))


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard similarity of two sets: arrays of distinct values, not both empty."""
    both = np.intersect1d(one, other, assume_unique=True).size
    return both / (one.size + other.size - both)


class TokenHashes(dict[bytes, int]):
    """token -> 64-bit hash, computed once for each distinct token."""

    def __missing__(self, token: bytes) -> int:
        digest = hashlib.blake2b(token, digest_size=8).digest()
        self[token] = value = int.from_bytes(digest, "little")
        return value


def shingles(content: bytes, hashes: TokenHashes, length: int = SHINGLE) -> np.ndarray:
    """u64[n], sorted and distinct: a hash of each run of `length` tokens, n >= 1."""
    tokens = [hashes[token] for token in TOKEN.findall(content)]
    tokens += [0] * (length - len(tokens))  # a short file is one shingle
    values = np.array(tokens, np.uint64)
    runs = np.zeros(len(tokens) - length + 1, np.uint64)
    for offset in range(length):
        # A polynomial hash modulo 2^64; the factor is odd, so no bit is lost.
        runs = runs * np.uint64(0x9E3779B97F4A7C15)
        runs += values[offset : offset + runs.size]
    return np.unique(runs)
