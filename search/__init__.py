"""How to look: operators and strategies over genomes, as pure functions."""

from search.constraints import constrained_ranks, constraint_dominates
from search.crossover import two_point, uniform_crossover
from search.crowding import crowded_order, crowding_distance
from search.hypervolume import hypervolume, hypervolume_contributions
from search.individuals import Individuals
from search.knee import knee_point
from search.mutate import change_one, resample
from search.pareto import dominates, failed, non_dominated
from search.ranks import non_dominated_ranks
from search.real import polynomial, simulated_binary, vary_real
from search.sample import near, smart, stratify, uniform
from search.select import elite, tournament
from search.simulate import History, simulate
from search.strategies import STRATEGIES
from search.strategies.aging import aging
from search.strategies.genetic import genetic
from search.strategies.local import local
from search.strategies.nsga2 import nsga2, nsga2_with
from search.strategies.predictor import predictor
from search.strategies.random import random_search
from search.types import Genes, Strategy
from search.vary import vary_integers

__all__ = [
    "STRATEGIES",
    "Genes",
    "History",
    "Individuals",
    "Strategy",
    "aging",
    "change_one",
    "constrained_ranks",
    "constraint_dominates",
    "crowded_order",
    "crowding_distance",
    "dominates",
    "elite",
    "failed",
    "genetic",
    "hypervolume",
    "hypervolume_contributions",
    "knee_point",
    "local",
    "near",
    "non_dominated",
    "non_dominated_ranks",
    "nsga2",
    "nsga2_with",
    "polynomial",
    "predictor",
    "random_search",
    "resample",
    "simulate",
    "simulated_binary",
    "smart",
    "stratify",
    "tournament",
    "two_point",
    "uniform",
    "uniform_crossover",
    "vary_integers",
    "vary_real",
]
