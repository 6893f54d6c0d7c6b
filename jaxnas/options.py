"""Command-line flags, made from the fields of RunConfig."""

import argparse
import dataclasses
import sys
from typing import Any, NoReturn

from jaxnas.config import RunConfig, kind_of
from jaxnas.presets import PRESETS


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(self, **options):
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with 2."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def add_settings(parser: argparse.ArgumentParser):
    """One flag for each field of RunConfig, in its groups."""
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(RunConfig):
        name = field.metadata["group"]
        group = groups.setdefault(name, parser.add_argument_group(name))
        kind = kind_of(field)
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            type=kind,
            default=argparse.SUPPRESS,
            metavar={int: "N", float: "X"}.get(kind, "NAME"),
            help=f"{field.metadata['help']}{_default(field)}".replace("%", "%%"),
        )


def _default(field: dataclasses.Field) -> str:
    if field.default is not None:
        return f" [{field.default}]"
    values = [
        f"{name} {preset.settings[field.name]:g}"
        for name, preset in PRESETS.items()
        if field.name in preset.settings
    ]
    return f" [{', '.join(values)}]" if values else ""


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings among parsed arguments: those that were written out."""
    names = {field.name for field in dataclasses.fields(RunConfig)}
    return {key: value for key, value in vars(arguments).items() if key in names}
