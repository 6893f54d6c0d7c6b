"""The strategies by name, as a run's config gives it."""

from collections.abc import Callable

from search.strategies.aging import aging
from search.strategies.genetic import genetic
from search.strategies.local import local
from search.strategies.nsga2 import nsga2
from search.strategies.predictor import predictor
from search.strategies.random import random_search
from search.types import Strategy

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "random": random_search,
    "genetic": genetic,
    "nsga2": nsga2,
    "aging": aging,
    "local": local,
    "predictor": predictor,
}
