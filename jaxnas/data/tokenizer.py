"""A byte-level BPE tokenizer (Sennrich et al. 2015, arXiv:1508.07909).

Its alphabet is the 256 bytes, so every text has tokens and comes back exactly.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from jaxnas.data.sources import DataError
from jaxnas.errors import UsageError

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0  # in tokenizers of ours
# What ends a text in those of others, the first that there is.
_ENDS = (END_OF_TEXT, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>")  # noqa: RUF001
MIN_VOCAB_SIZE = 257  # 256 bytes and the end of text
MAX_VOCAB_SIZE = 65_536  # of a tokenizer that is made here: ids fit in 16 bits


_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def check_vocab_size(vocab_size: int) -> None:
    """Raises a DataError for a size that no tokenizer of ours can have."""
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise DataError(
            f"vocab_size must be from {MIN_VOCAB_SIZE} (256 bytes and the end of"
            f" text) to {MAX_VOCAB_SIZE}, got {vocab_size}"
        )


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns merges from `texts`, in whatever order they come.

    A pair is merged only if it occurs twice, so a small corpus can give fewer
    than `vocab_size` tokens.

    Raises:
      DataError: `vocab_size` is not in [257, 65536].
    """
    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return load_tokenizer(tokenizer.to_str())


def load_tokenizer(text: str) -> Tokenizer:
    """From the text of a `tokenizer.json`, as `Tokenizer.to_str` writes it."""
    tokenizer = Tokenizer.from_str(text)
    # A source file may spell out the end-of-text token: there it is plain text.
    # The saved form doesn't carry this setting.
    tokenizer.encode_special_tokens = True
    return tokenizer


def special_reader(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Encodes texts in which special tokens that are spelled out are those."""
    # Another one, which is not set to take them for text.
    reading = Tokenizer.from_str(tokenizer.to_str())
    return lambda text: reading.encode(text, add_special_tokens=False).ids


def inner_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """Of a text that others stand before: without what begins one."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def known_end_of_text(tokenizer: Tokenizer) -> int | None:
    """As `end_of_text`; None if it has none."""
    ids = map(tokenizer.token_to_id, _ENDS)
    return next((i for i in ids if i is not None), None)


def end_of_text(tokenizer: Tokenizer) -> int:
    """The token that stands behind each file.

    Raises:
      DataError: it has none.
    """
    found = known_end_of_text(tokenizer)
    if found is None:
        raise DataError(
            f"the tokenizer has no token that ends a text: none of {', '.join(_ENDS)}"
        )
    return found


def room_of(tokenizer: Tokenizer) -> int:
    """Rows that an embedding needs: one more than the greatest id."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def check_room(tokenizer: Tokenizer, room: int, where: str) -> None:
    """Raises a UsageError if an embedding of so many rows lacks one for a token."""
    if (needed := room_of(tokenizer)) > room:
        number = tokenizer.get_vocab_size()
        raise UsageError(
            f"{where} has {number} tokens up to id {needed - 1}, the model room for "
            f"{room}"
        )


def id_type(room: int) -> np.dtype:
    """What holds ids below `room`: u16, or u32 for the large vocabularies of others."""
    return np.dtype(np.uint16 if room <= MAX_VOCAB_SIZE else np.uint32)


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """ids[N]: all texts' tokens in turn, with the end of text after each.

    Of `id_type`: u16 for every tokenizer of ours.
    """
    kind = id_type(room_of(tokenizer))
    parts: list[np.ndarray] = [np.zeros(0, kind)]
    end = end_of_text(tokenizer)
    texts = iter(texts)
    # In batches: the library's encodings weigh 100 times what their ids do.
    while batch := list(itertools.islice(texts, 32)):
        for encoding in tokenizer.encode_batch_fast(batch):
            parts.append(np.array([*encoding.ids, end], kind))
    return np.concatenate(parts)


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """i32[V]: how many bytes of text each token is; 0 for those that are no text."""
    sizes = np.zeros(room_of(tokenizer), np.int32)
    form = json.loads(tokenizer.to_str())
    # The byte-level alphabet spells each byte as one character.
    by_byte = "ByteLevel" in str((form["pre_tokenizer"], form["decoder"]))
    size = len if by_byte else _spelled_bytes
    for token, i in tokenizer.get_vocab(with_added_tokens=False).items():
        sizes[i] = size(token)
    for i, added in tokenizer.get_added_tokens_decoder().items():
        sizes[i] = 0 if added.special else len(added.content.encode())
    sizes[end_of_text(tokenizer)] = 0
    return sizes


def _spelled_bytes(token: str) -> int:
    """Of a vocabulary as SentencePiece has them: spaces are ▁, bytes <0x0A>."""
    return 1 if _BYTE.fullmatch(token) else len(token.replace("▁", " ").encode())
