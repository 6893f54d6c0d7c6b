"""The text of drawn tokens, as soon as it is certain."""

from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

from arch.decoding.generate import Generated

UNREADABLE = "\N{REPLACEMENT CHARACTER}"  # what bytes that are no text decode to


def pieces(
    parts: Iterator[Generated],
    tokenizer: Tokenizer,
    stops: Sequence[str],
    prompt: Sequence[int] = (),
    line: str = "",
) -> Iterator[str]:
    """The text of the first row, as soon as it is certain.

    Bytes are held back until they make a character, and so is what may be the
    beginning of a stop text, which ends the text and is not part of it. Tokens are
    read behind the prompt's: some tokenizers drop the first space of a text.

    Args:
      parts: what is drawn.
      tokenizer: of the model.
      stops: texts before which it ends.
      prompt: tokens that stand before what is drawn.
      line: without its end; before a whole line of this text, and the break in
        front of it, it ends, too. Empty for none.
    """
    begun = f"\n{line}"
    if line:  # a longer line that only begins so is another
        stops = [*stops, f"{begun}\n", f"{begun}\r"]
    done = 0
    before = len(tokenizer.decode(list(prompt), skip_special_tokens=True))
    text = ""
    for part in parts:
        ids = part.tokens[0, : part.lengths[0]].tolist()
        text = tokenizer.decode([*prompt, *ids], skip_special_tokens=True)[before:]
        starts = [start for stop in stops if (start := text.find(stop)) >= 0]
        if starts:
            text = text[: min(starts)]
            break
        certain = len(text) - _held_back(text, stops)
        if certain > done:
            yield text[done:certain]
            done = certain
    if line:  # the text's end is a line's, too
        text = text.removesuffix(begun)
    if text[done:]:
        yield text[done:]


def _held_back(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may change or vanish."""
    whole = text.rstrip(UNREADABLE)
    begun = [
        size
        for stop in stops
        for size in range(1, min(len(stop), len(whole) + 1))
        if whole.endswith(stop[:size])
    ]
    return len(text) - len(whole) + max(begun, default=0)
