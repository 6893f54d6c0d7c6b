"""What the models of a run's space cost, and which its limits allow."""

import math
from collections.abc import Mapping

from arch.cost import Hardware
from arch.space import Space
from jaxnas.analytic.cost_table import CostTable, cost_table, limits_in_words
from jaxnas.config import Settings
from jaxnas.errors import NothingAllowed
from jaxnas.spaces import load_space
from jaxnas.training.task import Task


def costs_of_space(
    settings: Settings,
    hardware: Hardware,
    fields: Mapping[str, int],
    space: Space | None = None,
) -> CostTable:
    """What the models of the run's space cost, and which its limits allow.

    Args:
      settings: of the run.
      hardware: whose latency is predicted.
      fields: see `fields_of`.
      space: of the run; by default the one that the settings name.

    Raises:
      NothingAllowed: they allow none.
      UsageError: the space is too large for a table.
    """
    space = load_space(settings.space) if space is None else space
    phase = next(iter(settings.named_phases().values()))
    most = math.inf if settings.max_latency is None else settings.max_latency
    table = cost_table(
        space,
        hardware,
        settings.latency,
        max_size=settings.max_size,
        max_latency=most,
        tokens=phase.samples * phase.epochs * settings.window,
        **fields,
    )
    if not table.feasible:
        least = table.costs.min(axis=0)
        raise NothingAllowed(
            f"no model of space {space.name} keeps to "
            f"{limits_in_words(settings.max_size, most)}: the smallest has "
            f"{least[0]:.3g} MiB, the fastest takes {least[1]:.3g} ms"
        )
    return table


def fields_of(task: Task) -> dict[str, int]:
    """Fields of every config that are no genes: what the data decides."""
    return {
        "vocab_size": task.dataset.vocab_size,
        "max_seq_length": task.settings.window,
    }
