"""From a source's name to the tokens of its three splits, cached."""

import dataclasses
import hashlib
import importlib.metadata
import io
import json
import platform
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from jaxnas.data.deduplicate import deduplicate
from jaxnas.data.named import read_source
from jaxnas.data.sources import DataError, Source, SourceFile
from jaxnas.data.split import SPLITS, split
from jaxnas.data.tokenizer import (
    END_OF_TEXT_ID,
    check_vocab_size,
    encode,
    end_of_text,
    load_tokenizer,
    token_bytes,
    train_tokenizer,
)
from jaxnas.storage import cache
from jaxnas.storage.inputs import LINES_BYTES
from jaxnas.storage.jsonl import Json

FORMAT = 1  # of a cache entry; raise it when the same files give other tokens
MIN_TOKENS = 256  # of each split


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Tokens of a body of code, split by file."""

    spec: str
    corpus_hash: str  # of the files kept and their weights, whatever their names
    train: np.ndarray  # ids[N] (`id_type`), the end-of-text token after each file
    validation: np.ndarray  # ids[N]
    test: np.ndarray  # ids[N]
    token_bytes: np.ndarray  # i32[V], bytes of each token
    tokenizer: Tokenizer
    vocab_size: int  # V, fewer than asked for if the corpus is small
    statistics: Json  # see `describe`

    def describe(self) -> Json:
        """What a manifest records of the data: JSON-able."""
        return {"source": self.spec, "corpus_hash": self.corpus_hash, **self.statistics}


def prepare(
    spec: str,
    vocab_size: int,
    cache_dir: Path | None = None,
    tokenizer: Tokenizer | None = None,
) -> Dataset:
    """Reads, deduplicates, splits and tokenizes a source, or reads the cache.

    Args:
      spec: a source's name, as `read_source` takes it.
      vocab_size: the most tokens the vocabulary may hold, in [257, 65536] if it is
        made here.
      cache_dir: by default `cache.cache_dir()`. One that can't be written is not
        an error: nothing is cached then.
      tokenizer: a model's own; by default one is made for the source.

    Raises:
      DataError: the source cannot be used, or a split would hold too little.
    """
    if tokenizer is None:
        check_vocab_size(vocab_size)
    source = read_source(spec)
    own = "" if tokenizer is None else tokenizer.to_str()
    name = f"{_key(source.files, vocab_size, own)}.npz"
    if cache_dir is None:
        path = cache.in_cache("data", name)
    else:
        path = Path(cache_dir) / "data" / name
    payload = cache.load(path)
    if payload is None:
        payload = _build(spec, source.files, vocab_size, tokenizer)
        cache.store(path, payload)
    return _unpack(spec, source, payload)


def windows(tokens: np.ndarray, number: int, length: int) -> np.ndarray:
    """Evenly spaced windows, the same each time.

    Args:
      tokens: ids[N], N > length.
      number: of windows, at least 1. Up to N // (length + 1) of them do not
        overlap; more than N - length repeat some.
      length: targets in a window, at least 1.

    Returns:
      i32[number, length + 1]: `[:, :-1]` are contexts, `[:, 1:]` their targets.
    """
    if min(number, length) < 1:
        raise ValueError(f"{number=} and {length=} must be at least 1")
    last = tokens.size - (length + 1)
    if last < 0:
        raise DataError(
            f"a window of {length} tokens and the one after needs {length + 1}"
            f" tokens, the split holds {tokens.size}: use more data or less context"
        )
    starts = np.arange(number) * last // max(number - 1, 1)
    return tokens[starts[:, None] + np.arange(length + 1)].astype(np.int32)


def _key(files: list[SourceFile], vocab_size: int, own: str) -> str:
    end = END_OF_TEXT_ID if not own else end_of_text(load_tokenizer(own))
    settings = {
        "format": FORMAT,
        "vocab_size": vocab_size,
        "tokenizers": importlib.metadata.version("tokenizers"),
        "files": sorted(file.sha256 for file in files),
        **({"tokenizer": _hash(own)} if own else {}),
        **({"end": end} if end != END_OF_TEXT_ID else {}),
    }
    if any(file.weight != 1 for file in files):
        settings["weights"] = sorted(map(_identity, files))
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _build(
    spec: str, files: list[SourceFile], vocab_size: int, tokenizer: Tokenizer | None
) -> bytes:
    """Everything that the files' contents and the settings decide, as an .npz."""
    kept, exact, near = deduplicate(files)
    parts = split(kept)
    for name in SPLITS:  # the quick check first: training takes seconds
        if not parts[name]:
            raise _too_small(spec, name, parts, 0)
    if tokenizer is None:
        texts = (file.text for file in parts["train"])
        tokenizer = train_tokenizer(texts, vocab_size)
    read = parts | {"train": _as_often(parts["train"])}
    tokens = {
        name: encode(tokenizer, (file.text for file in read[name])) for name in SPLITS
    }
    for name in SPLITS:
        if tokens[name].size < MIN_TOKENS:
            raise _too_small(spec, name, parts, tokens[name].size)
    saved = tokenizer.to_str()
    facts = {
        "corpus_hash": _hash("".join(sorted(map(_identity, kept)))),
        "files_read": len(files),
        "files_kept": len(kept),
        "exact_duplicates": exact,
        "near_duplicates": near,
        "bytes": sum(len(file.content) for file in kept),
        "splits": {
            name: {
                "files": len(parts[name]),
                "bytes": sum(len(file.content) for file in parts[name]),
                "tokens": tokens[name].size,
            }
            for name in SPLITS
        },
        "vocab_size": tokenizer.get_vocab_size(),
        "vocab_size_asked": vocab_size,
        "tokenizer_hash": _hash(saved),
    }
    written = {"facts": json.dumps(facts), "tokenizer": saved}
    out = io.BytesIO()
    np.savez(
        out,
        allow_pickle=False,
        **tokens,
        **{
            key: np.frombuffer(text.encode(), np.uint8) for key, text in written.items()
        },
    )
    return out.getvalue()


def _identity(file: SourceFile) -> str:
    """What a file is worth to a training: its content, and how often it is read."""
    return file.sha256 if file.weight == 1 else f"{file.sha256}*{file.weight}"


def _as_often(files: list[SourceFile]) -> list[SourceFile]:
    """Each file as often as its weight says, once round all of them after another.

    Of a weight's fraction the content decides which files are read once more: bits of
    its hash that neither deduplication nor the split has looked at.

    Raises:
      DataError: all of it is more than is held in memory.
    """
    size = sum(file.weight * len(file.content) for file in files)
    if size > LINES_BYTES:
        raise DataError(
            f"the training files are {size:,.0f} bytes as often as their weights say, "
            f"at most {LINES_BYTES:,}: take lower weights"
        )
    times = [
        int(file.weight) + (int(file.sha256[16:24], 16) / 2**32 < file.weight % 1)
        for file in files
    ]
    rounds = range(max(times, default=0))
    return [
        file
        for number in rounds
        for file, most in zip(files, times, strict=True)
        if number < most
    ]


def _unpack(spec: str, source: Source, payload: bytes) -> Dataset:
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        facts = json.loads(arrays["facts"].tobytes())
        tokenizer = load_tokenizer(arrays["tokenizer"].tobytes().decode())
        tokens = {name: arrays[name] for name in SPLITS}
    return Dataset(
        spec=spec,
        corpus_hash=facts.pop("corpus_hash"),
        **tokens,
        token_bytes=token_bytes(tokenizer),
        tokenizer=tokenizer,
        vocab_size=facts["vocab_size"],
        statistics={
            "python": platform.python_version(),
            "left_out": source.left_out,
            "skipped_folders": len(source.skipped_folders),
            "licences": dict(source.licences),
            **facts,
        },
    )


def _too_small(
    spec: str, name: str, parts: dict[str, list[SourceFile]], tokens: int
) -> DataError:
    total = sum(len(files) for files in parts.values())
    return DataError(
        f"the {name} split of {spec!r} holds {len(parts[name])} files and {tokens}"
        f" tokens, at least 1 file and {MIN_TOKENS} tokens are needed: the"
        f" {total} distinct files are split by content hash, so add more files"
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
