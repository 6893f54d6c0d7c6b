"""Numbers and lists as a sentence has them, commands as a shell reads them."""

import shlex
from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """1 candidate, 2 candidates, 1,000 candidates."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def command(*words: object) -> str:
    """A command of ours, to be copied: paths may hold spaces and quotes."""
    return shlex.join(["python", "-m", "jaxnas.run", *map(str, words)])
