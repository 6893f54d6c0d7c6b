"""What is called as candidates train."""

from collections.abc import Callable
from typing import Any, NamedTuple

from arch import ArchitectureConfig, Params
from jaxnas.population.plan import Plan
from jaxnas.training.phase import Phase


def _nothing(*_: Any) -> None:
    """What an observer does by default."""


class Observer(NamedTuple):
    """Functions that are called as training goes on.

    Attributes:
      planned: with each new plan before it runs.
      ran: with each plan that has run as planned, its seconds those that were
        expected as it began, and the seconds that it took.
      trained: with each newly trained config, its weights as they are scored, what
        it is worth (`Prospects.worth`, None if it failed) and its phase, before the
        training is recorded.
      failed: with each config whose training failed and the traceback.
      say: with a line about what goes otherwise than planned.
    """

    planned: Callable[[Plan], None] = _nothing
    ran: Callable[[Plan, float], None] = _nothing
    trained: Callable[[ArchitectureConfig, Params, float | None, Phase], None] = (
        _nothing
    )
    failed: Callable[[ArchitectureConfig, str], None] = _nothing
    say: Callable[[str], None] = _nothing
