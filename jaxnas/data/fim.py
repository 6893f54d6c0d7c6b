"""Fill in the middle (Bavarian et al. 2022, arXiv:2207.14255).

A piece of a file is cut at two places, and its middle is moved behind: before it
stand what came before and what came after, each behind a token of its own. A model
that is trained on such pieces writes what belongs at a cursor.
"""

import json
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from jaxnas.data.sources import DataError
from jaxnas.data.tokenizer import end_of_text, load_tokenizer

# By these names llama.cpp and its editors know them, and Qwen2.5-Coder.
TOKENS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
# What stands before the prefix, the suffix and the middle in others, from their
# tokenizers' configs; all of them are trained in this order, too.
SPELLINGS = (
    TOKENS,
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, StarCoder2
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001 DeepSeek-Coder
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # CodeGeeX4
)

_DIVIDED = "\ufffd"  # what decoding writes for a part of a character


def fim_names(tokenizer: Tokenizer) -> tuple[str, str, str] | None:
    """The three tokens as this tokenizer spells them; None if it lacks one."""
    for names in SPELLINGS:
        if all(tokenizer.token_to_id(name) is not None for name in names):
            return names
    return None


def fim_ids(tokenizer: Tokenizer) -> tuple[int, int, int] | None:
    """The ids of the three tokens; None if it lacks one."""
    names = fim_names(tokenizer)
    if names is None:
        return None
    prefix, suffix, middle = map(tokenizer.token_to_id, names)
    assert prefix is not None
    assert suffix is not None
    assert middle is not None
    return prefix, suffix, middle


def with_fim(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the three tokens, in place of its last merges.

    It has as many tokens as before.

    Raises:
      DataError: it is no byte-level BPE whose last tokens are merges.
    """
    if fim_ids(tokenizer) is not None:
        return tokenizer
    content = json.loads(tokenizer.to_str())
    model, size = content["model"], tokenizer.get_vocab_size()
    gone = {model["vocab"].get(text): text for text in model.get("vocab", {})}
    last = [gone.get(size - 1 - n) for n in range(len(TOKENS))]
    merges = [
        tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ", 1))
        for pair in model.get("merges", [])
    ]
    made = {left + right for left, right in merges}
    if model["type"] != "BPE" or not made.issuperset(last):
        raise DataError(
            "this tokenizer has no merges to give up for fill-in-the-middle"
        )
    left_out = set(last)
    model["vocab"] = {
        text: id_ for text, id_ in model["vocab"].items() if text not in left_out
    }
    model["merges"] = [
        list(pair)
        for pair in merges
        if pair[0] + pair[1] not in left_out and left_out.isdisjoint(pair)
    ]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] += [
        {"id": size - len(TOKENS) + n, "content": text, **flags, "special": True}
        for n, text in enumerate(TOKENS)
    ]
    found = load_tokenizer(json.dumps(content))
    if found.get_vocab_size() != size or fim_ids(found) is None:
        raise DataError("this tokenizer takes no tokens for fill-in-the-middle")
    return found


def around(
    before: list[int], after: list[int], ids: tuple[int, int, int], room: int
) -> list[int]:
    """Both sides of a cursor, for the middle to be drawn behind them.

    Args:
      before: tokens; the last ones count.
      after: tokens; the first ones count, a quarter of the room or what is left.
      ids: from `fim_ids`.
      room: tokens, at most.
    """
    prefix, suffix, middle = ids
    room = max(0, room - len(ids))
    behind = min(len(after), max(room // 4, room - len(before)))
    kept = before[len(before) - min(len(before), room - behind) :]
    return [prefix, *kept, suffix, *after[:behind], middle]


def fim_tokens(
    tokens: np.ndarray, tokenizer: Tokenizer, rate: float, length: int, seed: int
) -> np.ndarray:
    """A stream of files with a share of their pieces rearranged.

    Args:
      tokens: ids[N], the end of text after each file.
      tokenizer: with the three tokens.
      rate: share of the pieces.
      length: tokens of a piece, at most. Pieces are cut at characters, so that words
        are cut too, as at a cursor.
      seed: of what is drawn.

    Returns:
      ids[about N + 3 a piece], the end of text after each piece that was rearranged.

    Raises:
      DataError: the tokenizer lacks a token.
    """
    ids = fim_ids(tokenizer)
    if ids is None:
        raise DataError("the tokenizer has no tokens for fill-in-the-middle")
    rng = np.random.default_rng([seed, len(tokens)])
    end = end_of_text(tokenizer)
    pieces = _pieces(tokens, length, end)
    chosen = np.flatnonzero(rng.random(len(pieces)) < rate)
    texts = tokenizer.decode_batch(
        [pieces[at].tolist() for at in chosen], skip_special_tokens=True
    )
    # A character whose tokens a piece divides is left out.
    texts = [text.strip(_DIVIDED) for text in texts]
    chosen = chosen[np.asarray([bool(text) for text in texts], bool)]
    parts: list[str] = []
    for text in filter(None, texts):
        first, second = sorted(rng.integers(0, len(text) + 1, 2).tolist())
        parts += [text[:first], text[second:], text[first:second]]
    encodings = tokenizer.encode_batch_fast(parts, add_special_tokens=False)
    encoded = [one.ids for one in encodings]
    marks = dict(zip(chosen.tolist(), range(len(chosen)), strict=True))
    out: list[Sequence[int] | np.ndarray] = []
    for at, piece in enumerate(pieces):
        if (place := marks.get(at)) is None:
            out.append(piece)
            continue
        for mark, part in zip(ids, encoded[3 * place : 3 * place + 3], strict=True):
            out += [[mark], part]
        out.append([end])
    return np.concatenate([np.asarray(part, tokens.dtype) for part in out])


def _pieces(tokens: np.ndarray, length: int, end: int) -> list[np.ndarray]:
    """Parts of files, at most so many tokens each, the end of text with the last."""
    found = []
    ends = np.flatnonzero(tokens == end) + 1
    for file in np.split(tokens, ends):
        found += [file[at : at + length] for at in range(0, len(file), length)]
    return found
