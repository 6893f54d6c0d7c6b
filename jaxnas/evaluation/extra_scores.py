"""The user's objectives, asked while a candidate's weights are there."""

import dataclasses
import hashlib
import json
import traceback
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from arch import ArchitectureConfig
from jaxnas.errors import reason_of
from jaxnas.evaluation.costs import Costs
from jaxnas.evaluation.training_log import Training, training_key
from jaxnas.evaluation.user_objectives import Objective, Results
from jaxnas.population.call import Outcome
from jaxnas.training.scoring import Compression
from jaxnas.training.single import ALIKE


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

    def _ask(self, config, params, results) -> tuple[dict[str, float] | str, str]:
        """Values by name, or the reason why not and the traceback."""
        values = {}
        for one in self.objectives:
            try:
                values[one.name] = one(config, params, results)
            except Exception as error:  # any: a candidate's failure is its result
                reason = f"objective {one.path}: {reason_of(error)}"
                return reason, traceback.format_exc()
        return values, ""

    def _served(self, configs, outcome: Outcome) -> Iterator[ArchitectureConfig]:
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


class ObjectiveFailed(RuntimeError):
    """An objective of the user's gave no number."""


def config_key(config: ArchitectureConfig) -> str:
    """The same for all configs that are one model."""
    ratio = float(config.pruning_ratio)  # 0 is 0.0
    fields = config.canonical().to_dict() | {"pruning_ratio": ratio}
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compression_of(config: ArchitectureConfig) -> Compression:
    """What the config asks for."""
    return Compression(config.quantization, config.pruning_ratio)


def _read_only(leaf) -> np.ndarray:
    """A view: what an objective did to the weights would be saved with them."""
    view = np.asarray(leaf).view()
    view.flags.writeable = False
    return view
