"""The settings of a run: a preset, a TOML file, flags."""

from jaxnas.config.fields import Values, kind_of
from jaxnas.config.files import (
    check_code,
    make_config,
    read_run_settings,
    read_toml,
    read_values,
)
from jaxnas.config.run_config import RunConfig, Settings

__all__ = [
    "RunConfig",
    "Settings",
    "Values",
    "check_code",
    "kind_of",
    "make_config",
    "read_run_settings",
    "read_toml",
    "read_values",
]
