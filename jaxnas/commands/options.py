"""Command-line flags, made from the fields of RunConfig."""

import argparse
import contextlib
import dataclasses
import difflib
import itertools
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxnas.checks import fault
from jaxnas.config import RunConfig, kind_of
from jaxnas.errors import UsageError
from jaxnas.presets import PRESETS
from jaxnas.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from jaxnas.report.tracking import Tracker


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line."""

    def __init__(
        self, prog: str, usage: str | None = None, description: str | None = None
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description and _wrapped(description),
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with 2."""
        message = message if len(message) < 500 else f"{message[:300]} ..."
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            near = difflib.get_close_matches(
                unknown.split()[0].partition("=")[0],
                self._option_string_actions,
                1,
                0.7,
            )
            message += f"; did you mean {near[0]}?" if near else ""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def _wrapped(text: str) -> str:
    """The text in the terminal's width; lines that are indented stay as they are."""
    width = max(40, shutil.get_terminal_size().columns - 2)
    parts = itertools.groupby(text.splitlines(), lambda line: line[:1] in ("", " "))
    return "\n".join(
        "\n".join(lines) if kept else textwrap.fill(" ".join(lines), width)
        for kept, lines in parts
    )


def whole(most: int = 2**32 - 1) -> Callable[[str], int]:
    """A type of argument: a whole number of at most so much.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
        if abs(value) > most:
            raise argparse.ArgumentTypeError(f"{text} must be at most {most:,}")
        return value

    return parse


def add_tracking(parser: argparse.ArgumentParser) -> None:
    """Who is told the figures as they come: flags that decide no result."""
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write event files for TensorBoard into the folder, in tensorboard/",
    )
    parser.add_argument(
        "--tracker",
        metavar="MODULE:FUNCTION",
        help="call this with each candidate's and evaluation's figures (wandb, MLflow)",
    )


def tracked_by(
    options: argparse.Namespace, folder: RunFolder
) -> contextlib.AbstractContextManager["Tracker | None"]:
    """The tracker that flags of `add_tracking` ask for, see `tracked`."""
    from jaxnas.report.tracking import tracked  # takes seconds

    events = folder.tensorboard if options.tensorboard else None
    return tracked(options.tracker, events)


MANY = 2**20  # of what is all in memory


def file_to_write(text: str) -> Path:
    """A path; its folder is made while arguments are read: before any work is done.

    Raises:
      argparse.ArgumentTypeError: no file can be there.
    """
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"cannot make the folder {path.parent}: {error.strerror}"
        ) from None
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name that is too long
        raise argparse.ArgumentTypeError(
            f"cannot write {text}: {error.strerror}"
        ) from None
    if is_folder:
        raise argparse.ArgumentTypeError(f"{text} is a folder")
    return path


def add_settings(parser: argparse.ArgumentParser) -> None:
    """One flag for each field of RunConfig, in its groups."""
    fields = dataclasses.fields(RunConfig)
    names = dict.fromkeys(field.metadata["group"] for field in fields)
    groups = {name: parser.add_argument_group(name) for name in names}
    for field in fields:
        groups[field.metadata["group"]].add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            default=argparse.SUPPRESS,
            help=f"{field.metadata['help']}{_default(field)}".replace("%", "%%"),
            **_value(kind_of(field), field.metadata["value"]),
        )


def _value(kind: type, of_text: str) -> dict[str, Any]:
    """What follows a flag of this kind; a bool has two flags, and nothing follows."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, of_text)}


def add_fit(parser: argparse.ArgumentParser) -> None:
    """The runs that a scaling law is to be fitted to."""
    parser.add_argument(
        "--fit",
        action="append",
        default=[],
        metavar="RUN",
        type=Path,
        help="fit the law to the losses that this run measured; several times for more",
    )


def check_flags(
    values: Mapping[str, Any], bounds: Mapping[str, Any], open_: Collection[str] = ()
) -> None:
    """Raises a UsageError for the first value that is out of its bounds.

    Args:
      values: by the names of their flags, with underscores.
      bounds: of each, see `fault`.
      open_: names that may be None.
    """
    for name, one in bounds.items():
        value = values[name]
        if value is None and name in open_:
            continue
        if (wrong := fault(value, **one)) is not None:
            raise UsageError(f"--{name.replace('_', '-')} {value} {wrong}")


def make_out(path: Path | None, flag: str = "--out") -> None:
    """Makes the folder that a flag names, before anything is computed for it.

    Raises:
      UsageError: it cannot be made.
    """
    if path is not None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{flag} {path}: {error.strerror}") from None


def named_once(text: str, known: Collection[str]) -> list[str]:
    """The objectives that --objectives names, in its order.

    Raises:
      UsageError: one is unknown or named twice.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--objectives: no objective {name!r}: choose {', '.join(known)}"
            )
    if len(set(names)) < len(names):
        raise UsageError(f"--objectives {text}: one is named twice")
    return names


def _default(field: dataclasses.Field) -> str:
    if isinstance(field.default, bool):
        return f" [{'yes' if field.default else 'no'}]"
    if field.default is not None:
        return f" [{field.default}]"
    values = [
        f"{name} {preset.settings[field.name]:g}"
        for name, preset in PRESETS.items()
        if field.name in preset.settings
    ]
    return f" [{', '.join(values)}]" if values else ""


def given_settings(arguments: argparse.Namespace) -> dict[str, str | int | float]:
    """The settings among parsed arguments: those that were written out."""
    names = {field.name for field in dataclasses.fields(RunConfig)}
    return {key: value for key, value in vars(arguments).items() if key in names}
