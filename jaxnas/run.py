"""The command line: `python -m jaxnas.run [COMMAND] ...`."""

import difflib
import importlib
import io
import keyword
import os
import sys

from jaxnas.commands import COMMANDS
from jaxnas.errors import (
    RunFailed,
    UsageError,
    asked_to_end,
    end_at_once_when_asked_twice,
    end_process,
    ended_by_sigterm,
    interrupted,
    one_line,
    out_of_memory,
)

DEFAULT = "search"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
      The exit code: 0, 1 if the run failed, 2 for input that cannot be used,
      130 if it was interrupted, 143 if it was told to end.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not one of someone's own
            # What another encoding has no character for is spelled out.
            stream.reconfigure(errors="backslashreplace")
    name = DEFAULT
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    if name not in COMMANDS:
        [*near] = difflib.get_close_matches(name, COMMANDS, 1, 0.75)
        known = f"did you mean {near[0]}?" if near else f"choose {', '.join(COMMANDS)}"
        print(f"jaxnas: no command {name[:99]!r}: {known}", file=sys.stderr)
        return 2
    try:
        # A Python keyword is no name for a module: "import" is in import_.py.
        module = f"{name}_" if keyword.iskeyword(name) else name
        command = importlib.import_module(f"jaxnas.commands.{module}")
        with ended_by_sigterm():
            command.main(arguments)
    except (Exception, KeyboardInterrupt) as error:
        if (asked := asked_to_end(error)) is not None:
            return interrupted(asked)
        return _failed(error)
    return 0


def _failed(error: BaseException) -> int:
    """Says in a line what ended a command; returns the exit code.

    Raises:
      BaseException: the error, if it is one of the code's own.
    """
    code, said = 2, None
    if isinstance(error, UsageError):
        said = one_line(error)
    elif isinstance(error, RunFailed | OSError):  # a full disk, a pipe that was closed
        code, said = 1, one_line(error)
    elif (wrong := _no_platform(error)) is not None:
        said = wrong
    else:
        code, said = 1, out_of_memory(error)
    if said is None:
        raise error
    print(f"jaxnas: {said}", file=sys.stderr)
    return code


def _no_platform(error: BaseException) -> str | None:
    """What is wrong with JAX_PLATFORMS, if JAX cannot start for it.

    By its text an error of the code's own looks like JAX's.
    """
    if not isinstance(error, RuntimeError | AssertionError) or "jax" not in sys.modules:
        return None
    from jaxnas.runtime import backend

    try:
        backend()
    except UsageError as wrong:
        return one_line(wrong)
    return None


if __name__ == "__main__":
    # All of it is made for 32 bits, whatever the shell says for other programs.
    os.environ.pop("JAX_ENABLE_X64", None)
    # What only counts and reads, and may do so beside a run that has the device.
    if sys.argv[1:2] in (["space"], ["report"], ["status"], ["show"], ["compare"]):
        os.environ["JAX_PLATFORMS"] = "cpu"
    end_at_once_when_asked_twice()
    end_process(main())
