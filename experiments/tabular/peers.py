"""What others ship, on integer genomes: pymoo's NSGA-II and Optuna's samplers."""

from collections.abc import Callable

import numpy as np

Evaluate = Callable[[np.ndarray], np.ndarray]  # i32[B, G] -> f32[B, M]


def pymoo_nsga2(
    evaluate: Evaluate, cardinality: np.ndarray, budget: int, seed: int, population: int
) -> np.ndarray:
    """f32[budget, M] as pymoo's NSGA-II asks, with its defaults for integers."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    told: list[np.ndarray] = []

    class Genomes(Problem):
        def __init__(self):
            super().__init__(
                n_var=len(cardinality), n_obj=2, xl=0, xu=cardinality - 1, vtype=int
            )

        def _evaluate(self, x, out, *args, **kwargs):
            out["F"] = evaluate(x.astype(np.int32))
            told.append(out["F"])

    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=20, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Genomes(), algorithm, ("n_eval", budget), seed=seed)
    return np.concatenate(told)[:budget]


def optuna_sampler(
    name: str, evaluate: Evaluate, cardinality: np.ndarray, budget: int, seed: int
) -> np.ndarray:
    """f32[budget, M] as the sampler of that class name asks, with its defaults."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=["minimize"] * 2,
        sampler=getattr(optuna.samplers, name)(seed=seed),
    )

    def objective(trial):
        genome = [
            trial.suggest_int(str(gene), 0, int(choices) - 1)
            for gene, choices in enumerate(cardinality)
        ]
        return tuple(evaluate(np.asarray([genome], np.int32))[0].tolist())

    study.optimize(objective, n_trials=budget)
    return np.asarray([trial.values for trial in study.trials], np.float32)
