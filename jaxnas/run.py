"""The command line: `python -m jaxnas.run [COMMAND] ...`."""

import importlib
import keyword
import sys

from jaxnas.commands import COMMANDS
from jaxnas.errors import RunFailed, UsageError, interrupted

DEFAULT = "search"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command.

    Returns:
      The exit code: 0, 1 if the run failed, 2 for input that cannot be used,
      130 if it was interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = DEFAULT
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"jaxnas: no command {name!r}: choose {known}", file=sys.stderr)
        return 2
    try:
        # A Python keyword is no name for a module: "import" is in import_.py.
        module = f"{name}_" if keyword.iskeyword(name) else name
        command = importlib.import_module(f"jaxnas.commands.{module}")
        command.main(arguments)
    except (UsageError, RunFailed) as error:
        print(f"jaxnas: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:  # a full disk, a pipe that was closed
        print(f"jaxnas: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted()
    return 0


if __name__ == "__main__":
    sys.exit(main())
