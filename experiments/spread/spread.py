"""Does accuracy tell candidates apart, or only seeds?

Trains every model of the minimal space with several seeds, as a default run
trains its candidates, and prints accuracy by model and seed.

    python experiments/spread/spread.py --seeds 4 --out experiments/spread/result.json
"""

import argparse
import dataclasses
import json

import numpy as np
from rich.console import Console

from arch.spaces import SPACES
from jaxnas.api import make_config_evaluator
from jaxnas.commands.options import file_to_write
from jaxnas.config import RunConfig
from jaxnas.report.tables import add_numbers, plain_table
from jaxnas.report.words import told_apart

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--seeds", type=int, default=4)
parser.add_argument("--space", default="minimal")
parser.add_argument("--out", type=file_to_write)
options = parser.parse_args()

space, settings = SPACES[options.space], RunConfig(space=options.space)
found = {}
for seed in range(options.seeds):
    evaluator = make_config_evaluator(dataclasses.replace(settings, seed=seed))
    tokens = evaluator.task.dataset.vocab_size
    window = evaluator.task.settings.window
    for index in range(space.total):
        config = space.decode(
            space.genome_at(index), vocab_size=tokens, max_seq_length=window
        )
        accuracy = evaluator(config).metrics.accuracy
        found.setdefault(config, []).append(accuracy)

accuracy = np.asarray(list(found.values()))  # [models, seeds]
shared, own = told_apart([config.to_dict() for config in found])
table = plain_table(f"accuracy: {' '.join(shared)}", "model")
add_numbers(table, *(f"seed {seed}" for seed in range(options.seeds)), "mean", "std")
for words, row in zip(own, accuracy, strict=True):
    cells = [f"{value:.4f}" for value in (*row, row.mean(), row.std(ddof=1))]
    table.add_row(" ".join(words), *cells)
over_models = accuracy.std(axis=0, ddof=1).mean()
over_seeds = np.sqrt(accuracy.var(axis=1, ddof=1).mean())
console = Console()
console.print(table)
console.print(
    f"std over models, mean of the seeds: {over_models:.5f}\n"
    f"std over seeds, pooled over the models: {over_seeds:.5f}\n"
    f"ratio: {over_models / over_seeds:.2f}",
    highlight=False,
)
if options.out:
    rows = {
        " ".join(words): row.tolist() for words, row in zip(own, accuracy, strict=True)
    }
    result = {
        "accuracy": rows,
        "std_over_models": over_models,
        "std_over_seeds": over_seeds,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
