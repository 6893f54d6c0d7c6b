"""What to beat in completing lines: what followed the longest match in training.

A token n-gram without a bound that backs off (arXiv:2401.17377): the end of the
prompt is looked up in the training files, as long an end as occurs there, and the
token that follows it most often is the next one.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxnas.benchmarks.lines import (
    MAX_NEW,
    Cursor,
    first_line,
    prompt_of,
    similarity,
)
from jaxnas.data import prepare
from jaxnas.export.model_folder import LoadedModel
from jaxnas.storage.jsonl import Json

LONGEST = 32  # tokens of an end that is looked up


class LongestMatch:
    """The training tokens, by where each token stands."""

    def __init__(self, tokens: np.ndarray) -> None:
        """Takes i[N], N >= 1."""
        self._tokens = np.asarray(tokens)
        self._places = np.argsort(self._tokens, kind="stable")
        self._starts = np.searchsorted(
            self._tokens[self._places], np.arange(int(self._tokens.max()) + 2)
        )

    def next_token(self, prompt: Sequence[int]) -> int | None:
        """The likeliest; None if the last token stands nowhere before another."""
        last = prompt[-1] if prompt else -1
        if not 0 <= last < len(self._starts) - 1:
            return None
        ends = self._places[self._starts[last] : self._starts[last + 1]]
        ends = ends[ends + 1 < len(self._tokens)]
        if not len(ends):
            return None
        for back in range(1, min(LONGEST, len(prompt))):
            before = ends[ends >= back]
            longer = before[self._tokens[before - back] == prompt[-1 - back]]
            if not len(longer):
                break
            ends = longer
        return int(np.bincount(self._tokens[ends + 1]).argmax())

    def continued(self, prompt: Sequence[int], most: int) -> list[int]:
        """The tokens that follow, at most so many."""
        read = list(prompt)
        for _ in range(most):
            token = self.next_token(read)
            if token is None:
                break
            read.append(token)
        return read[len(prompt) :]


def matched_lines(
    model: LoadedModel, data: str, places: Sequence[Cursor], context: int
) -> Json:
    """Exact matches and edit similarity of the next line, as `lines` counts them.

    Args:
      model: whose tokenizer cuts the text.
      data: the source, whose training files are looked up.
      places: see `cursors`.
      context: tokens before a cursor that are read, at most.
    """
    tokenizer = model.tokenizer
    dataset = prepare(data, model.config.vocab_size, tokenizer=tokenizer)
    ngram = LongestMatch(dataset.train)

    def drawn() -> Iterator[tuple[str, str]]:
        for place in places:
            tokens = ngram.continued(prompt_of(model, place, context), MAX_NEW)
            yield first_line(tokenizer.decode(tokens)), place.line

    found = list(drawn())
    return {
        "exact_match": sum(line == wanted for line, wanted in found) / len(found),
        "edit_similarity": sum(similarity(*pair) for pair in found) / len(found),
    }
