"""What ends a command."""


class UsageError(ValueError):
    """Input that cannot be used: one line for the user, exit code 2."""


class RunFailed(RuntimeError):
    """A run that could not give a result: one line for the user, exit code 1."""
