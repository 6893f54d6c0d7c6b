"""What does compression cost a model of ours, beside what is predicted?

Trains one small model on so many windows, compresses it in each way, and prints
how much its held-out loss rises over that of the model as it was trained.

    python experiments/capability/compressing.py --out compression.json
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence

from rich.table import Table

from arch import ArchitectureConfig
from arch.config import QUANTIZATIONS
from arch.scaling import predicted_loss
from jaxnas.api import make_config_evaluator
from jaxnas.commands.options import file_to_write
from jaxnas.config import RunConfig
from jaxnas.report.tables import add_numbers, plain_console, plain_table

RATIOS = (0.0, 0.2, 0.4)  # of pruning


def compressed(vocab: int, window: int) -> list[ArchitectureConfig]:
    """One model, compressed in each way; first as it is trained."""
    model = ArchitectureConfig(
        arch_type="transformer",
        num_layers=4,
        hidden_dim=256,
        num_heads=4,
        ffn_multiplier=4.0,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        vocab_size=vocab,
        max_seq_length=window,
    )
    return [
        dataclasses.replace(model, pruning_ratio=ratio, quantization=name)
        for ratio in RATIOS
        for name in QUANTIZATIONS
    ]


def measure(samples: int) -> list[dict[str, float | str]]:
    """Rises of the loss after training on so many windows, nats a token."""
    settings = dataclasses.replace(RunConfig(), samples=samples)
    evaluator = make_config_evaluator(settings)
    window = evaluator.task.settings.window
    configs = compressed(evaluator.task.dataset.vocab_size, window)
    tokens = samples * window
    losses = [found.metrics.loss for found in evaluator.evaluate(configs).values()]
    predicted = [predicted_loss(config, tokens) for config in configs]
    return [
        {
            "tokens": tokens,
            "pruning": config.pruning_ratio,
            "quantization": config.quantization,
            "loss": loss,
            "measured": loss - losses[0],
            "predicted": expected - predicted[0],
        }
        for config, loss, expected in zip(configs, losses, predicted, strict=True)
    ]


def table_of(rows: Sequence[dict[str, float | str]]) -> Table:
    """A row a compression; by training tokens what was measured and predicted."""
    table = plain_table("Rise of the loss, nats a token, after so many tokens", "model")
    for tokens in dict.fromkeys(row["tokens"] for row in rows):
        add_numbers(table, f"{tokens:,}", "law")
    ways = dict.fromkeys((row["pruning"], row["quantization"]) for row in rows)
    for way in ways:
        own = [row for row in rows if (row["pruning"], row["quantization"]) == way]
        both = [row[key] for row in own for key in ("measured", "predicted")]
        table.add_row(f"pruned {way[0]} {way[1]}", *(f"{rise:.4f}" for rise in both))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[400, 2000, 8000])
    parser.add_argument("--out", type=file_to_write)
    options = parser.parse_args()
    found = [row for samples in options.samples for row in measure(samples)]
    plain_console().print(table_of(found))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
