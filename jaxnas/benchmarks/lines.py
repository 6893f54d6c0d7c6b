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

from arch.decoding.generate import generate, position_limit
from arch.decoding.unrolled import unstack
from jaxnas.data import END_OF_TEXT, SourceFile, deduplicate, read_source, split
from jaxnas.data.fim import around, fim_ids
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import LoadedModel
from jaxnas.runtime import compute_dtype
from jaxnas.storage.jsonl import Json

BATCH = 16  # cursors at once
MAX_NEW = 32  # tokens of a line
LEAST = 4  # characters of a line that is asked for
ABOVE = 3  # lines before a cursor


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
) -> Json:
    """Exact matches and edit similarity of the next line.

    Args:
      model: as it is stored.
      places: see `cursors`.
      context: tokens before a cursor that are read, at most.
      report: told how many are done, of how many.
      filling: whether the model also reads what stands behind the line.

    Raises:
      UsageError: there is no place, the model reads too little, or it was not
        trained to fill in the middle.
    """
    if not places:
        raise UsageError("the test files hold no line to complete")
    same = similar = 0.0
    drawn = drawn_lines(model, places, context, filling)
    for done, (place, text) in enumerate(zip(places, drawn, strict=True), 1):
        line = first_line(text)
        same += line == place.line
        similar += similarity(line, place.line)
        report(done, len(places))
    number = len(places)
    rate = same / number
    return {
        "cursors": number,
        "exact_match": rate,
        "exact_match_error": (rate * (1 - rate) / number) ** 0.5,
        "edit_similarity": similar / number,
    }


def drawn_lines(
    model: LoadedModel, places: Sequence[Cursor], context: int, filling: bool = False
) -> Iterator[str]:
    """What the model writes at each cursor."""
    config, tokenizer = model.config, model.tokenizer
    limit = position_limit(config)
    if limit is not None:
        context = min(context, limit - min(MAX_NEW, limit // 2))
    room = MAX_NEW if limit is None else min(MAX_NEW, limit - context)
    if context < 1 or room < 1:
        raise UsageError(f"a model of {limit} positions completes no line")
    ids = fim_ids(tokenizer)
    if filling and ids is None:
        raise UsageError("the model was not trained to fill in the middle")
    end = tokenizer.token_to_id(END_OF_TEXT)

    def prompt_of(place: Cursor) -> list[int]:
        before = tokenizer.encode(place.before[-16 * context :]).ids
        if not filling or ids is None:
            return before[-context:]
        return around(
            before, tokenizer.encode(place.after[: 16 * context]).ids, ids, context
        )

    weights = unstack(model.params)
    for begin in range(0, len(places), BATCH):
        batch = places[begin : begin + BATCH]
        prompts = [prompt_of(place) for place in batch]
        prompts += [prompts[-1]] * (BATCH - len(batch))  # one program for all
        found = generate(
            jax.random.key(0),
            config,
            weights,
            prompts,
            max_new=room,
            stop_tokens=[] if end is None else [end],
            dtype=compute_dtype(),
        )
        for prompt, tokens, length in zip(
            prompts[: len(batch)], found.tokens, found.lengths, strict=False
        ):
            read = [] if filling else prompt
            before = len(tokenizer.decode(read))
            yield tokenizer.decode([*read, *tokens[:length].tolist()])[before:]


def first_line(text: str) -> str:
    """The first line that says something, without white space around it."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


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
