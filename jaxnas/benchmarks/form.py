"""Alarms: completions that are no Python, and completions that repeat themselves."""

import codeop
import warnings
from collections.abc import Callable, Sequence

from jaxnas.benchmarks.lines import Cursor, drawn_at
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import LoadedModel
from jaxnas.storage.jsonl import Json

MAX_NEW = 64  # tokens of a completion
GRAM = 4  # tokens
REPEATS = 0.5  # share of a completion's runs of tokens that occurred in it before


def form(
    model: LoadedModel,
    places: Sequence[Cursor],
    context: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Json:
    """Shares of completions that parse, and that repeat themselves.

    The likeliest tokens behind a cursor are cut at their last whole line; with all
    that stands before the cursor that must be the beginning of a Python file. Only
    cursors whose file is one up to there count.

    Args:
      model: as it is stored.
      places: see `cursors`, in Python files.
      context: tokens before a cursor that are read, at most.
      report: told how many are done, of how many.

    Raises:
      UsageError: no place counts.
    """
    places = [place for place in places if begins_python(place.before)]
    if not places:
        raise UsageError("the test files hold no Python to go on with")
    parsed = repeated = 0
    drawn = drawn_at(model, places, context, most=MAX_NEW)
    for done, (place, one) in enumerate(zip(places, drawn, strict=True), 1):
        parsed += begins_python(place.before + one.text.rpartition("\n")[0])
        repeated += repeats(one.tokens)
        report(done, len(places))
    return {
        "completions": len(places),
        "parses": parsed / len(places),
        "repeats": repeated / len(places),
    }


def begins_python(text: str) -> bool:
    """Whether a Python file can begin with these lines. Nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codeop.compile_command(text, symbol="exec")
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
        return False
    return True


def repeats(tokens: Sequence[int]) -> bool:
    """Whether half of the runs of 4 tokens or more have occurred before."""
    runs = [tuple(tokens[at : at + GRAM]) for at in range(len(tokens) - GRAM + 1)]
    return bool(runs) and 1 - len(set(runs)) / len(runs) >= REPEATS
