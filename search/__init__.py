"""How to look: operators and strategies over genomes, as pure functions."""

from search.individuals import Individuals
from search.limits import Limited, limited, unlimited
from search.operators.crossover import two_point, uniform_crossover
from search.operators.mutate import change_one, resample
from search.operators.sample import near, smart, spread, stratify, uniform
from search.operators.sbx import polynomial, simulated_binary, vary_real
from search.operators.select import elite, tournament
from search.operators.vary import vary_integers
from search.pareto.constraints import constrained_ranks, constraint_dominates
from search.pareto.crowding import crowded_order, crowding_distance
from search.pareto.dominance import dominates, failed, non_dominated
from search.pareto.hypervolume import hypervolume, hypervolume_contributions
from search.pareto.knee import knee_point
from search.pareto.ranks import non_dominated_ranks
from search.pareto.thinning import spread_order
from search.simulate import History, simulate
from search.strategies import STRATEGIES
from search.strategies.aging import aging
from search.strategies.genetic import genetic
from search.strategies.local import local
from search.strategies.nsga2 import nsga2, nsga2_with
from search.strategies.predictor import predictor
from search.strategies.random import random_search
from search.surrogate.prediction import Prediction, posterior_mean
from search.types import Genes, Strategy

__all__ = [
    "STRATEGIES",
    "Genes",
    "History",
    "Individuals",
    "Limited",
    "Prediction",
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
    "limited",
    "local",
    "near",
    "non_dominated",
    "non_dominated_ranks",
    "nsga2",
    "nsga2_with",
    "polynomial",
    "posterior_mean",
    "predictor",
    "random_search",
    "resample",
    "simulate",
    "simulated_binary",
    "smart",
    "spread",
    "spread_order",
    "stratify",
    "tournament",
    "two_point",
    "uniform",
    "uniform_crossover",
    "unlimited",
    "vary_integers",
    "vary_real",
]
