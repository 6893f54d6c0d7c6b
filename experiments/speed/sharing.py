"""Which candidates share a program, and what that is predicted to take.

    python experiments/speed/sharing.py [--populations N]

First generations of 50, planned, beside a program for each model and one for each
family: for this machine's calibration, and for a made-up device bound by launches,
on which 8 lanes of a model of `medium` cost 1.3 times one. Nothing is compiled.
"""

import argparse
import dataclasses
import statistics

import jax

from arch import ArchitectureConfig
from arch.padding import common_shape
from arch.space import GENES, Space
from arch.spaces import SPACES
from jaxnas.population.cost_model import Rates, fitted_rates
from jaxnas.population.devices import local_machine
from jaxnas.population.planner import Planner, planner_for
from jaxnas.population.program import Program
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import training_config

POPULATION, LANES, TIMES = 50, 8, 1.3
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


def bound_by_launches() -> Rates:
    """Rates by which `LANES` lanes of a typical model cost `TIMES` one lane."""
    typical = ArchitectureConfig(
        arch_type="transformer",
        num_layers=8,
        hidden_dim=384,
        num_heads=4,
        ffn_multiplier=3.0,
        normalization="layernorm",
        activation="gelu",
        position_encoding="absolute",
        vocab_size=8192,
        max_seq_length=DEVICE.window,
    )
    program = Program(shape=common_shape([typical]), form="looped")
    rates = fitted_rates()
    launches = rates.launch_seconds(program, DEVICE)
    rest = rates.step_seconds(program, typical, DEVICE) - launches
    share = (TIMES - 1) / (LANES - 1)  # of a step, that every lane takes for itself
    factor = share / (1 - share) * launches / rest
    return rates.scaled(1.0, factor, factor, 1.0, rates.handling, workers=1)


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
    here = local_machine(say=print)
    device = Planner(
        rates=bound_by_launches(),
        settings=DEVICE,
        steps=0,
        vmapped=True,
        cores=16,
        shares_cores=False,
    )
    spaces = {"tiny": tiny(), "medium": SPACES["medium"], "full": SPACES["full"]}
    for name, (settings, vocabulary) in {
        "this one": (HERE, 1024),
        "launches": (DEVICE, 8192),
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
