"""Objectives of the user's own: found by import path, asked beside the weights."""

import dataclasses
import hashlib
import importlib
import inspect
import json
import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from arch import ArchitectureConfig, Params
from jaxnas.errors import UsageError, reason_of
from jaxnas.evaluation.costs import Costs
from jaxnas.evaluation.training_log import Training
from jaxnas.population.call import Outcome
from jaxnas.storage.inputs import read_json
from jaxnas.training.keys import training_key
from jaxnas.training.scoring import Compression, Metrics
from jaxnas.training.single import ALIKE

# Strategies square and sum them in single precision.
GREATEST = 1e15

# Columns of the tables, beside the names of metrics and costs.
_TAKEN = {"accuracy", "size", "latency", "fitness", "params", "MiB", "ms"}
_TAKEN |= {*Metrics.__dataclass_fields__, *Costs.__dataclass_fields__}


class Results(NamedTuple):
    """What is known of a candidate by the time that an objective is asked."""

    metrics: Metrics  # on the validation windows, after its compression
    costs: Costs  # of what would be exported


Function = Callable[[ArchitectureConfig, Params, Results], Any]


class Objective(NamedTuple):
    """A function to be minimised."""

    path: str  # package.module:function
    function: Function

    @property
    def name(self) -> str:
        """Its name in tables and plots."""
        return name_of(self.path)

    @property
    def source(self) -> str | None:
        """A hash of the file that it is in; None if there is no such file."""
        try:
            file = inspect.getsourcefile(inspect.unwrap(self.function))
        except TypeError:  # an object that was made, not defined
            module = importlib.import_module(self.path.partition(":")[0])
            file = getattr(module, "__file__", None)
        if file is None or not Path(file).is_file():
            return None
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]

    def __call__(
        self, config: ArchitectureConfig, params: Params, results: Results
    ) -> float:
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
        objective = Objective(path, imported(path))
        if objective.name in _TAKEN:
            raise UsageError(
                f"objectives: {path!r} needs another name: {objective.name!r} is ours"
            )
        if objective.name in [one.name for one in found]:
            raise UsageError(f"objectives: {objective.name!r} is named twice in {text}")
        found.append(objective)
    return tuple(found)


def imported(path: str, setting: str = "objectives") -> Callable[..., Any]:
    """The function at an import path, `module:function`.

    Args:
      path: of the user's.
      setting: that it was given as.

    Raises:
      UsageError: it is written otherwise, cannot be imported, or is no function.
    """
    module, colon, name = path.partition(":")
    parts = [*module.split("."), name]
    if not colon or not all(part.isidentifier() for part in parts):
        raise UsageError(f"{setting}: {path!r} is not of the form module:function")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:  # any: a module may do anything
        raise UsageError(
            f"{setting}: cannot import {module!r}: {reason_of(error)}"
        ) from None
    if function is None:
        raise UsageError(f"{setting}: module {module!r} has no function {name!r}")
    if not callable(function):
        raise UsageError(f"{setting}: {path!r} is no function but {function!r:.60}")
    return function


def sources_of(objectives: tuple[Objective, ...]) -> dict[str, str | None]:
    """The hash of each objective's source, by its path."""
    return {one.path: one.source for one in objectives}


def changed_since(manifest: Path, sources: dict[str, str | None]) -> list[str]:
    """Which objectives' sources are not those of a run's manifest, if it has one."""
    if not manifest.exists():
        return []
    before = read_json(manifest).get("objectives", {})
    return [path for path, source in sources.items() if before.get(path) != source]


class ObjectiveFailed(RuntimeError):
    """An objective of the user's gave no number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extra:
    """Objectives beside ours.

    Attributes:
      objectives: in the order of their values.
      families: that the search may ask for. Some share their trainings.
    """

    objectives: tuple[Objective, ...] = ()
    families: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of their values."""
        return tuple(one.name for one in self.objectives)

    def lacks(self, config: ArchitectureConfig, training: Training) -> bool:
        """Whether the weights are needed once more, for a config that was scored."""
        if not self.objectives or config_key(config) in training.extra:
            return False
        return training.metrics.get(compression_of(config)) is not None

    def found(self, config: ArchitectureConfig, training: Training) -> list[float]:
        """A config's values.

        Raises:
          ObjectiveFailed: there are none, with the reason.
        """
        if not self.objectives:
            return []
        found = training.extra.get(config_key(config))
        if isinstance(found, dict):
            return [found[name] for name in self.names]
        raise ObjectiveFailed(found or training.reason or "it has no weights")

    def measured(
        self,
        training: Training,
        configs: Sequence[ArchitectureConfig],
        outcome: Outcome,
        costs_of: Callable[[ArchitectureConfig], Costs],
        on_failed: Callable[[ArchitectureConfig, str], None],
    ) -> Training:
        """The training with values for all configs that it can answer for.

        Args:
          training: with all its metrics.
          configs: those that were asked for, equal in training.
          outcome: what it left; its metrics say for which compressions.
          costs_of: what a config costs.
          on_failed: told of each failure's first config and traceback.
        """
        if not self.objectives:
            return training
        extra, traces = dict(training.extra), set()
        for config in self._served(configs, outcome):
            if (key := config_key(config)) in extra:
                continue
            metrics = outcome.metrics.get(compression_of(config))
            weights = outcome.weights_for(config.pruning_ratio)
            if metrics is None or weights is None:  # it fails anyway, or is known
                continue
            params = jax.tree.map(_read_only, weights)
            results = Results(metrics=metrics, costs=costs_of(config))
            extra[key], trace = self._ask(config, params, results)
            if trace and trace not in traces:
                traces.add(trace)
                on_failed(config, trace)
        return dataclasses.replace(training, extra=extra)

    def _ask(
        self, config: ArchitectureConfig, params: Params, results: Results
    ) -> tuple[dict[str, float] | str, str]:
        """Values by name, or the reason why not and the traceback."""
        values = {}
        for one in self.objectives:
            try:
                values[one.name] = one(config, params, results)
            except Exception as error:  # any: a candidate's failure is its result
                reason = f"objective {one.path}: {reason_of(error)}"
                return reason, traceback.format_exc()
        return values, ""

    def _served(
        self, configs: Sequence[ArchitectureConfig], outcome: Outcome
    ) -> Iterator[ArchitectureConfig]:
        """The configs, and those that may ask for the same weights later."""
        yield from (config.canonical() for config in configs)
        base = configs[0].canonical()
        alike = [name for name in ALIKE if base.arch_type in ALIKE]
        for name in dict.fromkeys([base.arch_type, *alike]):
            if name != base.arch_type and name not in self.families:
                continue
            for compression in outcome.metrics:
                changes = {"arch_type": name, **compression._asdict()}
                config = dataclasses.replace(base, **changes).canonical()
                if training_key(config) == training_key(base):
                    yield config


def config_key(config: ArchitectureConfig) -> str:
    """The same for all configs that are one model."""
    text = json.dumps(config.canonical().to_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compression_of(config: ArchitectureConfig) -> Compression:
    """What the config asks for."""
    return Compression(config.quantization, config.pruning_ratio)


def _read_only(leaf: np.ndarray) -> np.ndarray:
    """A view: what an objective did to the weights would be saved with them."""
    view = np.asarray(leaf).view()
    view.flags.writeable = False
    return view
