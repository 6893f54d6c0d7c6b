"""How often a model writes the line that comes next.

Code completion in editors is judged by lines (arXiv:2405.08704): a cursor stands at
the end of a line of a held-out file, the model reads what is before it and draws the
likeliest tokens, and the first line that says something is compared with the file's.
White space around a line does not count: editors indent.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from tokenizers import Tokenizer

from arch.decoding.generate import generate, position_limit
from arch.decoding.unrolled import unstack
from jaxnas.benchmarks.confidence import log_probabilities
from jaxnas.data import SourceFile, deduplicate, read_source, split
from jaxnas.data.fim import around, fim_ids
from jaxnas.data.tokenizer import inner_tokens
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import LoadedModel
from jaxnas.runtime import compute_dtype
from jaxnas.storage.jsonl import Json

BATCH = 16  # cursors at once
MAX_NEW = 32  # tokens of a line
LEAST = 4  # characters of a line that is asked for
ABOVE = 3  # lines before a cursor
CONFIDENCE = 0.5
CONFIDENCES = tuple(tenth / 10 for tenth in range(10))  # from which a line is shown


class Cursor(NamedTuple):
    """A place in a file.

    Attributes:
      before: what stands before it.
      line: that comes next, without white space around it.
      after: what stands behind that line.
    """

    before: str
    line: str
    after: str = ""


class Drawn(NamedTuple):
    """What a model writes at a cursor.

    Attributes:
      text: of the tokens.
      tokens: the likeliest, one after the other.
      confidence: the probability that the model gives the first line of it.
    """

    text: str
    tokens: list[int]
    confidence: float


def cursors(files: Sequence[SourceFile], number: int, seed: int) -> list[Cursor]:
    """Places in files, drawn with equal chances for each line that says something.

    Args:
      files: to draw from.
      number: of cursors, or as many as there are.
      seed: the same places for every model.
    """
    places = []
    for at, file in enumerate(files):
        lines = file.text.split("\n")
        places += [
            (at, row)
            for row in range(ABOVE, len(lines))
            if len(lines[row].strip()) >= LEAST
        ]
    chosen = random.Random(seed).sample(places, min(number, len(places)))
    found = []
    for at, row in sorted(chosen):
        lines = files[at].text.split("\n")
        # The line break is the model's to draw: with what it indents, it is a token.
        above = "\n".join(lines[:row]).rstrip()
        below = "\n".join(["", *lines[row + 1 :]])
        found.append(Cursor(above, lines[row].strip(), below))
    return found


def held_out(data: str) -> list[SourceFile]:
    """The test files of a source."""
    kept, _, _ = deduplicate(read_source(data).files)
    return split(kept)["test"]


def lines(
    model: LoadedModel,
    places: Sequence[Cursor],
    context: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    filling: bool = False,
    confidence: float = CONFIDENCE,
) -> Json:
    """Exact matches, edit similarity and characters saved of the next line.

    An editor shows a line that the model is sure of; one that is right saves its
    characters, and the others have to be typed.

    Args:
      model: as it is stored.
      places: see `cursors`.
      context: tokens before a cursor that are read, at most.
      report: told how many are done, of how many.
      filling: whether the model also reads what stands behind the line.
      confidence: from which a line is shown.

    Raises:
      UsageError: there is no place, the model reads too little, or it was not
        trained to fill in the middle.
    """
    if not places:
        raise UsageError("the test files hold no line to complete")
    similar, found = 0.0, []
    drawn = drawn_at(model, places, context, filling)
    for done, (place, one) in enumerate(zip(places, drawn, strict=True), 1):
        line = first_line(one.text)
        similar += similarity(line, place.line)
        found.append((line == place.line, one.confidence, len(place.line)))
        report(done, len(places))
    number = len(places)
    rate = sum(right for right, *_ in found) / number
    return {
        "cursors": number,
        "exact_match": rate,
        "exact_match_error": (rate * (1 - rate) / number) ** 0.5,
        "edit_similarity": similar / number,
        "saved": saved(found, confidence)["saved"],
        "at_confidence": {f"{one:g}": saved(found, one) for one in CONFIDENCES},
    }


def saved(found: Sequence[tuple[bool, float, int]], confidence: float) -> Json:
    """What an editor saves that shows lines of this confidence or more.

    Args:
      found: of each line whether it is right, the model's confidence, and the
        characters of the file's line.
      confidence: in [0, 1].

    Returns:
      Shares: of lines that are shown, of those that are right, and of all
      characters that lie in lines that are shown and right.
    """
    shown = [(right, length) for right, sure, length in found if sure >= confidence]
    return {
        "shown": len(shown) / len(found),
        "right": sum(right for right, _ in shown) / max(len(shown), 1),
        "saved": sum(length for right, length in shown if right)
        / sum(length for *_, length in found),
    }


def drawn_lines(
    model: LoadedModel, places: Sequence[Cursor], context: int, filling: bool = False
) -> Iterator[str]:
    """What the model writes at each cursor."""
    return (one.text for one in drawn_at(model, places, context, filling))


def drawn_at(
    model: LoadedModel,
    places: Sequence[Cursor],
    context: int,
    filling: bool = False,
    most: int = MAX_NEW,
) -> Iterator[Drawn]:
    """The likeliest tokens at each cursor, `most` at most.

    Raises:
      UsageError: the model reads too little, was not trained to fill in the middle,
        or begins no text.
    """
    config, tokenizer = model.config, model.tokenizer
    limit = position_limit(config)
    if limit is not None:
        context = min(context, limit - min(most, limit // 2))
    room = most if limit is None else min(most, limit - context)
    if context < 1 or room < 1:
        raise UsageError(f"a model of {limit} positions completes no line")
    if filling and fim_ids(tokenizer) is None:
        raise UsageError("the model was not trained to fill in the middle")
    weights = unstack(model.params)
    for begin in range(0, len(places), BATCH):
        batch = places[begin : begin + BATCH]
        prompts = [prompt_of(model, place, context, filling) for place in batch]
        prompts += [prompts[-1]] * (BATCH - len(batch))  # one program for all
        found = generate(
            jax.random.key(0),
            config,
            weights,
            prompts,
            max_new=room,
            stop_tokens=model.ends,
            dtype=compute_dtype(),
        )
        rows = [
            tokens[:length].tolist()
            for tokens, length in zip(found.tokens, found.lengths, strict=True)
        ]
        sure = log_probabilities(model, prompts, rows)
        for prompt, tokens, each in list(zip(prompts, rows, sure, strict=True))[
            : len(batch)
        ]:
            read = [] if filling else prompt
            text = tokenizer.decode([*read, *tokens])[len(tokenizer.decode(read)) :]
            line = tokens_of_line(tokenizer, tokens)
            yield Drawn(text, tokens, float(np.exp(each[:line].sum())))


def prompt_of(
    model: LoadedModel, place: Cursor, context: int, filling: bool = False
) -> list[int]:
    """What a model reads at a cursor: at least one token.

    Where nothing stands before the cursor, that is what begins a text.

    Raises:
      UsageError: nothing does, and the tokenizer has no token to begin with.
    """
    tokenizer = model.tokenizer
    before = tokenizer.encode(place.before[-16 * context :]).ids
    ids = fim_ids(tokenizer)
    if not filling or ids is None:
        return before[-context:] or [model.first_token()]
    after = inner_tokens(tokenizer, place.after[: 16 * context])
    return around(before, after, ids, context)


def tokens_of_line(tokenizer: Tokenizer, tokens: Sequence[int]) -> int:
    """How many tokens there are up to the end of the first line that says something."""
    for number in range(1, len(tokens)):
        text = tokenizer.decode(list(tokens[:number])).lstrip()
        if "\n" in text:
            return number
    return len(tokens)


def first_line(text: str) -> str:
    """The first line that says something, without white space around it."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def with_first_line(text: str) -> str:
    """All up to the end of that line, as it stands."""
    line = first_line(text)
    return text[: text.index(line) + len(line)]


def similarity(one: str, other: str) -> float:
    """1 less the edit distance (Levenshtein) over the longer one's length."""
    longest = max(len(one), len(other))
    if longest == 0:
        return 1.0
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            cost = before + (left != right)
            before, row[j] = row[j], min(cost, row[j] + 1, row[j - 1] + 1)
    return 1 - row[-1] / longest
