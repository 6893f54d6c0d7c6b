"""Which candidates share a program, and what that is predicted to take.

    python experiments/speed/sharing.py [--populations N]

First generations of 50, planned, beside a program for each model and one for each
family: for this machine, and for a GPU by what was measured on one. Nothing is
compiled.
"""

import argparse
import dataclasses
import statistics

import jax

from arch.genes import GENES
from arch.space import Space
from arch.spaces import SPACES
from jaxnas.population.cost_model import fitted_rates
from jaxnas.population.devices import TRACING, local_machine
from jaxnas.population.planner import Planner, planner_for
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import training_config

POPULATION = 50
STEPS = (50, 300, 1500)
HERE = TrainSettings(window=64, batch=4, learning_rate=1e-3)
DEVICE = TrainSettings(window=128, batch=16, learning_rate=1e-3)


def tiny() -> Space:
    """The space `full` with widths and depths for a CPU."""
    full = SPACES["full"]
    changes = {
        "hidden_dim": (32, 48, 64, 96, 128, 192),
        "num_layers": (2, 3, 4, 6),
        "num_heads": (1, 2, 4, 8),
    }
    chosen = zip(GENES, full.choices, strict=True)
    return Space("tiny", tuple(changes.get(name, values) for name, values in chosen))


def population(space: Space, seed: int, settings: TrainSettings, vocabulary: int):
    """Distinct configs, as they are trained."""
    fields = {"vocab_size": vocabulary, "max_seq_length": settings.window}
    genomes = space.sample(jax.random.key(seed), POPULATION)
    configs = [training_config(space.decode(one, **fields)) for one in genomes]
    return list(dict.fromkeys(configs))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--populations", type=int, default=10)
    options = parser.parse_args()
    table = plain_table("Predicted seconds, means", "device, space, steps")
    add_numbers(table, "planned", "programs", "a call", "each alone", "a family")
    here = local_machine()
    device = Planner(
        rates=fitted_rates("gpu"),
        settings=DEVICE,
        steps=0,
        vmapped=True,
        cores=TRACING,
        shares_cores=False,
    )
    spaces = {"tiny": tiny(), "medium": SPACES["medium"], "full": SPACES["full"]}
    for name, (settings, vocabulary) in {
        "this one": (HERE, 1024),
        "an H200": (DEVICE, 8192),
    }.items():
        for space in spaces:
            for steps in STEPS:
                planner = dataclasses.replace(device, steps=steps)
                if name == "this one":
                    planner = planner_for(here, settings, steps, scoring=0.0)
                rows = []
                for seed in range(options.populations):
                    configs = population(spaces[space], seed, settings, vocabulary)
                    plan = planner.plan(configs)
                    calls = sum(len(bucket.groups) for bucket in plan.buckets)
                    others = [planner.fixed(configs, exact) for exact in (True, False)]
                    found = (plan.seconds, len(plan.programs()), len(configs) / calls)
                    rows.append((*found, *[other.seconds for other in others]))
                means = [statistics.mean(column) for column in zip(*rows, strict=True)]
                table.add_row(
                    f"{name}, {space}, {steps}", *[f"{mean:.4g}" for mean in means]
                )
    plain_console().print(table)


if __name__ == "__main__":
    main()
