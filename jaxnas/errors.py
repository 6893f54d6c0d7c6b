"""What ends a command."""

import sys


class UsageError(ValueError):
    """Input that cannot be used: one line for the user, exit code 2."""


class RunFailed(RuntimeError):
    """A run that could not give a result: one line for the user, exit code 1."""


def interrupted(advice: str = "") -> int:
    """Says that the user stopped the command; returns the exit code for it."""
    print(f"\njaxnas: interrupted{advice and f'; {advice}'}", file=sys.stderr)
    return 130
