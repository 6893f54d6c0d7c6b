"""The strategies by name, as a run's config gives it."""

from collections.abc import Callable

from search.strategies.genetic import genetic
from search.types import Strategy

STRATEGIES: dict[str, Callable[..., Strategy]] = {"genetic": genetic}
