"""How large should embeddings and sinusoids start?

Trains one small model (L4 H256, absolute positions) from several initial scales,
as a default run trains a candidate, and prints its quality.

    python experiments/initial/initial.py --seeds 2
"""

import argparse
import dataclasses

import numpy as np
from rich.console import Console

import arch.initial
import arch.model
from arch.spaces import SPACES
from jaxnas.api import make_config_evaluator
from jaxnas.config import RunConfig
from jaxnas.report.tables import add_numbers, plain_table
from jaxnas.training import scoring, single

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--seeds", type=int, default=2)
options = parser.parse_args()

SCALES = ((0.02, 0.02), (0.02, 0.002), (0.3, 0.03), (1.0, 1.0), (1.0, 0.3), (1.0, 0.1))

table = plain_table("L4 H256 heads 4")
add_numbers(table, "embedding std", "sinusoid scale", "accuracy", "bits/byte")
for embedding, sinusoid in SCALES:
    # The two constants, for this experiment alone.
    arch.initial.embedding_deviation = lambda config, value=embedding: value
    arch.model.embedding_deviation = arch.initial.embedding_deviation
    arch.model.POSITION_SCALE = sinusoid / embedding
    single._trainer.cache_clear()
    scoring._scorer.cache_clear()
    found = []
    for seed in range(options.seeds):
        evaluator = make_config_evaluator(dataclasses.replace(RunConfig(), seed=seed))
        config = SPACES["minimal"].decode(
            SPACES["minimal"].genome_at(0),
            vocab_size=evaluator.task.dataset.vocab_size,
            max_seq_length=evaluator.task.settings.window,
        )
        metrics = evaluator(config).metrics
        found.append((metrics.accuracy, metrics.bits_per_byte))
    accuracy, bits = np.mean(found, axis=0)
    table.add_row(str(embedding), str(sinusoid), f"{accuracy:.4f}", f"{bits:.3f}")
Console().print(table)
