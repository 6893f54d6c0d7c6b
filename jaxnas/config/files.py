"""Settings in TOML files: a user's, and those that a run keeps."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from jaxnas.config.fields import Values
from jaxnas.config.run_config import PLANNED, RunConfig
from jaxnas.errors import UsageError
from jaxnas.presets import STRATEGY_SETTINGS, unread_by
from jaxnas.storage import inputs


def read_toml(path: Path, anew: bool = False) -> Values:
    """The settings of a TOML file, by name.

    Args:
      path: of the file.
      anew: for another run, which plans for itself what a budget's clock decided.

    Raises:
      UsageError: the file cannot be read, is not TOML, or has an unknown key.
    """
    known = [field.name for field in dataclasses.fields(RunConfig)]
    values = read_values(path, [*known, PLANNED])
    planned: object = values.pop(PLANNED, [])
    if not isinstance(planned, list) or not {*map(str, planned)} <= {*known}:
        raise UsageError(f"{path}: {PLANNED} must be a list of settings")
    if anew:
        values = {name: value for name, value in values.items() if name not in planned}
    return _without_unread(values)


def read_values(path: Path, known: Collection[str]) -> Values:
    """The values of a TOML file; arguments and errors as for `read_toml`."""
    values = inputs.read_toml(path)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(
            f"{path} has the unknown key {', '.join(map(repr, unknown))}; "
            f"known: {', '.join(known)}"
        )
    return values


def _without_unread(values: Values) -> Values:
    """Run folders made before 0.1.0 hold these defaults whatever the strategy."""
    strategy = values.get("strategy")
    if not isinstance(strategy, str) or strategy not in STRATEGY_SETTINGS:
        return values
    defaults = STRATEGY_SETTINGS["genetic"]
    unread = {
        name for name in unread_by(strategy) if values.get(name) == defaults[name]
    }
    return {name: value for name, value in values.items() if name not in unread}


def read_run_settings(path: Path) -> RunConfig:
    """The settings in a run's folder.

    Raises:
      UsageError: they cannot be read, or none were written there.
    """
    values = read_toml(path)
    missing = [name for name in _ALWAYS if name not in values]
    if missing:
        raise UsageError(
            f"cannot resume: {path} lacks {', '.join(missing)}: it is not what a run "
            f"wrote there"
        )
    return make_config(values, str(path))


def check_code(config: RunConfig, named: object, where: str) -> None:
    """Refuses code that a file alone names: whoever runs it has to name it, too.

    Args:
      config: read from a file.
      named: the objectives that the command or the call names.
      where: the file.

    Raises:
      UsageError: they are not the file's.
    """
    if config.objectives is not None and named != config.objectives:
        raise UsageError(
            f"{where} names code to run, objectives={config.objectives!r}: it runs if "
            f"--objectives {config.objectives} is given, too"
        )


_ALWAYS = ("data", "seed")  # in any run's settings


def make_config(values: Values, where: str) -> RunConfig:
    """A RunConfig of the values; an error says where they stand."""
    try:
        return RunConfig(**values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
