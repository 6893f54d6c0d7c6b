"""How to look: operators and strategies over integer genomes, as pure functions."""

from search.crossover import two_point
from search.mutate import resample
from search.sample import near, smart, stratify, uniform
from search.select import elite, tournament
from search.strategies import STRATEGIES
from search.strategies.genetic import genetic
from search.types import Genes, Strategy

__all__ = [
    "STRATEGIES",
    "Genes",
    "Strategy",
    "elite",
    "genetic",
    "near",
    "resample",
    "smart",
    "stratify",
    "tournament",
    "two_point",
    "uniform",
]
