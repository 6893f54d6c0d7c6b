"""Objectives of the user's own: functions that a run finds by import path."""

import hashlib
import importlib
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from arch import ArchitectureConfig
from jaxnas.errors import UsageError, reason_of
from jaxnas.evaluation.costs import Costs
from jaxnas.training.scoring import Metrics

# Strategies square and sum them in single precision.
GREATEST = 1e15

# Columns of the tables, beside the names of metrics and costs.
_TAKEN = {"accuracy", "size", "latency", "fitness", "params", "MiB", "ms"}
_TAKEN |= {*Metrics.__dataclass_fields__, *Costs.__dataclass_fields__}


class Results(NamedTuple):
    """What is known of a candidate by the time that an objective is asked."""

    metrics: Metrics  # on the validation windows, after its compression
    costs: Costs  # of what would be exported


Function = Callable[[ArchitectureConfig, dict, Results], Any]


class Objective(NamedTuple):
    """A function to be minimised."""

    path: str  # package.module:function
    function: Function

    @property
    def name(self) -> str:
        """Under which it stands in tables and plots."""
        return name_of(self.path)

    @property
    def source(self) -> str | None:
        """A hash of the file that it stands in; None if there is no such file."""
        try:
            file = inspect.getsourcefile(inspect.unwrap(self.function))
        except TypeError:  # an object that was made, not defined
            module = importlib.import_module(self.path.partition(":")[0])
            file = getattr(module, "__file__", None)
        if file is None or not Path(file).is_file():
            return None
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]

    def __call__(self, config: ArchitectureConfig, params: dict, results: Results):
        """The number that the function returns, as a float.

        Raises:
          ValueError: it is no number, not finite, or above GREATEST in magnitude.
          Exception: whatever the function raises.
        """
        found = self.function(config, params, results)
        try:
            number = float(found)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        # A text is no number, even where Python could read one in it.
        if isinstance(found, str | bytes) or not abs(number) <= GREATEST:
            said = " ".join(repr(found).split())[:60]
            raise ValueError(f"it returned {said}, no finite number up to {GREATEST:g}")
        return number


def paths_in(text: str | None) -> list[str]:
    """The import paths that a setting names, in its order."""
    return [] if not text else [path.strip() for path in text.split(",")]


def name_of(path: str) -> str:
    """What comes after the colon."""
    return path.partition(":")[2]


def objective_names(text: str | None) -> list[str]:
    """The names of a setting's objectives, in its order; nothing is imported."""
    return [name_of(path) for path in paths_in(text)]


def load_objectives(text: str | None) -> tuple[Objective, ...]:
    """Imports the objectives of a setting, `module:function` with commas between.

    Raises:
      UsageError: one is written otherwise, cannot be imported, is no function, or
        has a name that is taken.
    """
    found: list[Objective] = []
    for path in paths_in(text):
        objective = Objective(path, _imported(path))
        if objective.name in _TAKEN:
            raise UsageError(
                f"objectives: {path!r} needs another name: {objective.name!r} is ours"
            )
        if objective.name in [one.name for one in found]:
            raise UsageError(f"objectives: {objective.name!r} is named twice in {text}")
        found.append(objective)
    return tuple(found)


def _imported(path: str) -> Function:
    module, colon, name = path.partition(":")
    parts = [*module.split("."), name]
    if not colon or not all(part.isidentifier() for part in parts):
        raise UsageError(f"objectives: {path!r} is not of the form module:function")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:  # any: a module may do anything
        raise UsageError(
            f"objectives: cannot import {module!r}: {reason_of(error)}"
        ) from None
    if function is None:
        raise UsageError(f"objectives: module {module!r} has no function {name!r}")
    if not callable(function):
        raise UsageError(f"objectives: {path!r} is no function but {function!r:.60}")
    return function


def sources_of(objectives: tuple[Objective, ...]) -> dict[str, str | None]:
    """The hash of each objective's source, by its path."""
    return {one.path: one.source for one in objectives}


def changed_since(manifest: Path, sources: dict[str, str | None]) -> list[str]:
    """Which objectives' sources are not those of a run's manifest, if it has one."""
    if not manifest.exists():
        return []
    before = json.loads(manifest.read_text()).get("objectives", {})
    return [path for path, source in sources.items() if before.get(path) != source]
