"""What ends a command."""

import re
import sys


class UsageError(ValueError):
    """Input that cannot be used: one line for the user, exit code 2."""


class RunFailed(RuntimeError):
    """A run that could not give a result: one line for the user, exit code 1."""


def reason_of(error: BaseException) -> str:
    """One line that is the same each time: no addresses, no traceback."""
    line = (str(error).strip().splitlines() or [""])[0][:300]
    line = re.sub(r"0x[0-9a-fA-F]+", "0x...", line)
    return f"{type(error).__name__}: {line}"


def interrupted(advice: str = "") -> int:
    """Says that the user stopped the command; returns the exit code for it."""
    print(f"\njaxnas: interrupted{advice and f'; {advice}'}", file=sys.stderr)
    return 130
