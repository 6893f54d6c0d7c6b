"""What each part of a strategy is worth on the space `nano`, by real trainings.

    python experiments/ablation/nano.py --out DIR

Each strategy, and each part of it that is left out by an argument that anyone can
give, asks for two batches of 12 under the limits of the default run, with five seeds.
Each model trains as it does in the first phase of that run, always from the same seed
and on the same windows, so that one which several ask for trains once:
`trainings.jsonl` in DIR, with which the same command goes on after a stop. The best
bits/byte on validation after 12 and 24 models, mean of the seeds, and the difference
to the whole strategy on the same seeds with its 95 % interval.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ablation import interval
from rich.table import Table

from arch.space import Space
from jaxnas.analytic.cost_table import CostTable
from jaxnas.config import RunConfig, Settings
from jaxnas.data import prepare
from jaxnas.evaluation.evaluator import Evaluation, Evaluator
from jaxnas.evaluation.training_log import TrainingLog
from jaxnas.keys import key_of
from jaxnas.latency.finalists import hardware_of
from jaxnas.pipeline.build import make_evaluator, make_fitness, make_task, make_trainer
from jaxnas.pipeline.limits import costs_of_space, fields_of
from jaxnas.pipeline.strategy import make_strategy
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.runtime import backend, set_up
from jaxnas.storage.jsonl import Lines
from search import Strategy

BATCHES = 2
ACCURACY = (0,)  # the objective that decides under limits
LIST, START = {"proposals": None}, {"seeds": None}
# Strategy -> what is left out -> what is built instead.
ARMS: dict[str, dict[str, dict]] = {
    "predictor": {
        "whole": {},
        "no analytic list": LIST,
        "no smart start": START,
        "noise fixed at 0.001": {"settings": {"noises": (1e-3,)}},
        "choices without order": {"ordered": None},
    },
    "genetic": {
        "whole": {},
        "no analytic list": LIST,
        "no crossover": {"settings": {"crossover_rate": 0.0}},
        "no elite": {"settings": {"elite_share": 0.0}},
    },
    "random": {"whole": {}},
}


@dataclasses.dataclass
class Search:
    """One strategy with one seed.

    Attributes:
      strategy: as a run builds it.
      seed: of its draws.
      state: the strategy's.
      found: the best bits/byte after each batch.
    """

    strategy: Strategy
    seed: int
    state: Any
    found: list[float]

    def ask(self, space: Space) -> np.ndarray:
        """i32[12, genes]."""
        key = key_of(self.seed, "ask", len(self.found))
        return np.asarray(jax.vmap(space.canonical)(self.strategy.ask(key, self.state)))

    def tell(self, genomes: np.ndarray, scored: Sequence[Evaluation]) -> None:
        """Of each genome its evaluation."""
        ids = len(self.found) * len(genomes) + np.arange(len(genomes))
        values = [one.objectives[:1] if one.objectives else (np.nan,) for one in scored]
        self.state = self.strategy.tell(
            self.state,
            jnp.asarray(ids, jnp.int32),
            jnp.asarray(genomes),
            jnp.asarray(values, jnp.float32),
            jnp.ones(len(genomes), bool),
        )
        bits = [one.metrics.bits_per_byte for one in scored if one.metrics]
        self.found.append(min([*self.found[-1:], *bits], default=np.nan))


def advance(searches: Sequence[Search], evaluator: Evaluator, table: CostTable) -> None:
    """A batch of each; all of them train together, so that programs are shared."""
    fields = fields_of(evaluator.task)
    asked = [search.ask(table.space) for search in searches]
    configs = [
        [table.space.decode(genome, **fields) for genome in genomes]
        for genomes in asked
    ]
    scored = evaluator.evaluate(
        list(dict.fromkeys(itertools.chain.from_iterable(configs)))
    )
    for search, genomes, batch in zip(searches, asked, configs, strict=True):
        search.tell(genomes, [scored[config] for config in batch])


def main() -> None:
    """Prints a table for each strategy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=list(ARMS), action="append")
    options = parser.parse_args()
    set_up()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = RunConfig(space="nano").resolve(backend())
    task = make_task(settings, prepare(settings.data, settings.vocab_size))
    hardware = hardware_of(settings)
    table = costs_of_space(settings, hardware, fields_of(task))
    console = plain_console()
    with Lines(options.out / "trainings.jsonl") as lines:
        evaluator = make_evaluator(
            settings,
            make_trainer(settings, task),
            table.space,
            hardware=hardware,
            trainings=TrainingLog(lines),
        )
        for name in options.only or ARMS:
            console.print(_table(name, evaluator, table, options.seeds))


def _table(name: str, evaluator: Evaluator, table: CostTable, seeds: int) -> Table:
    settings = RunConfig(space="nano", strategy=name).resolve(backend())
    searches = {
        words: _searches(settings, table, change, seeds)
        for words, change in ARMS[name].items()
    }
    for batch in range(1, BATCHES + 1):
        advance(list(itertools.chain(*searches.values())), evaluator, table)
        trained = len(evaluator.trainings)
        print(f"{name}, batch {batch}: {trained} trainings", flush=True)
    shown = plain_table(f"{name}, {seeds} seeds", "")
    counts = [settings.population * (batch + 1) for batch in range(BATCHES)]
    add_numbers(shown, *map(str, counts), f"this - whole, {counts[-1]}", "+-")
    whole = _found(searches["whole"])
    for words, of in searches.items():
        found = _found(of)
        lost = found[:, -1] - whole[:, -1]
        cells = [f"{mean:.4f}" for mean in found.mean(axis=0)]
        more = [f"{lost.mean():+.4f}", f"{interval(lost):.4f}"]
        shown.add_row(words, *cells, *(["", ""] if words == "whole" else more))
    return shown


def _searches(
    settings: Settings, table: CostTable, change: dict, seeds: int
) -> list[Search]:
    strategy = make_strategy(
        settings, table, make_fitness(settings), ACCURACY, **change
    )
    return [
        Search(strategy, seed, strategy.init(key_of(seed, "init")), [])
        for seed in range(seeds)
    ]


def _found(searches: Sequence[Search]) -> np.ndarray:
    """f64[seeds, batches]."""
    return np.asarray([search.found for search in searches])


if __name__ == "__main__":
    main()
