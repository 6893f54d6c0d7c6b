"""The command line: `python -m jaxnas.run [COMMAND] ...`."""

import importlib
import io
import keyword
import os
import sys

from jaxnas.commands import COMMANDS
from jaxnas.errors import (
    RunFailed,
    UsageError,
    end_at_once_when_asked_twice,
    ended_by_sigterm,
    interrupted,
    no_platform,
    one_line,
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
        known = ", ".join(COMMANDS)
        print(f"jaxnas: no command {name[:99]!r}: choose {known}", file=sys.stderr)
        return 2
    try:
        # A Python keyword is no name for a module: "import" is in import_.py.
        module = f"{name}_" if keyword.iskeyword(name) else name
        command = importlib.import_module(f"jaxnas.commands.{module}")
        with ended_by_sigterm():
            command.main(arguments)
    except (UsageError, RunFailed) as error:
        print(f"jaxnas: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:  # a full disk, a pipe that was closed
        print(f"jaxnas: {one_line(error)}", file=sys.stderr)
        return 1
    except (RuntimeError, AssertionError) as error:
        if (said := no_platform(error)) is None:
            raise
        print(f"jaxnas: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted()
    return 0


if __name__ == "__main__":
    # All of it is made for 32 bits, whatever the shell says for other programs.
    os.environ.pop("JAX_ENABLE_X64", None)
    # What only counts and reads, and may do so beside a run that has the device.
    if sys.argv[1:2] in (["space"], ["report"], ["status"], ["show"], ["compare"]):
        os.environ["JAX_PLATFORMS"] = "cpu"
    end_at_once_when_asked_twice()
    sys.exit(main())
