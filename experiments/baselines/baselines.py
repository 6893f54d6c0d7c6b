"""A search's winner beside models that nobody searched for, like for like.

    python -m jaxnas.run --data folder:django --budget 8m --out runs/django
    python experiments/baselines/baselines.py runs/django --data folder:django

The four reference architectures (`arch/baselines.py`) and the obvious model are made
as wide and deep as the winner's bytes allow, with its tokenizer and its
quantisation; then all of them are trained by the command `train`, from untrained
weights, on the same tokens in the same windows, with several seeds. --dir is
where the trainings lie; one that is done there is not done again.
"""

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from arch import ArchitectureConfig, build_model
from arch.baselines import BASELINES
from arch.cost import size_mib, stored_parameters
from arch.families import has_heads
from arch.initial import draw_parameters
from jaxnas.commands.options import file_to_write
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import LoadedModel, load_model, save_model
from jaxnas.pipeline.obvious import obvious_models
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.report.words import describe
from jaxnas.run import main as command
from jaxnas.storage.run_folder import model_in

HEAD = 16  # channels of a head, by which widths differ


def as_small(
    config: ArchitectureConfig, winner: ArchitectureConfig
) -> ArchitectureConfig:
    """The reference in the width and depth that come closest to the winner's bytes.

    Between the winner's depth and twice that, never larger than the winner; heads of
    16 channels.

    Raises:
      UsageError: no width is narrow enough.
    """
    shared = ("vocab_size", "max_seq_length", "quantization", "tie_embeddings")
    fields = {name: getattr(winner, name) for name in shared}
    sizes = itertools.product(
        range(winner.num_layers, 2 * winner.num_layers + 1), range(HEAD, 1024, HEAD)
    )
    models = [
        dataclasses.replace(
            config,
            num_layers=layers,
            hidden_dim=width,
            num_heads=width // HEAD if has_heads(config.arch_type) else 1,
            **fields,
        ).canonical()
        for layers, width in sizes
    ]
    fitting = [model for model in models if size_mib(model) <= size_mib(winner)]
    if not fitting:
        raise UsageError(f"no {config.arch_type} is as small as {size_mib(winner)} MiB")
    return max(fitting, key=size_mib)


def contenders(model: LoadedModel, tokens: int) -> dict[str, ArchitectureConfig]:
    """The winner and those that it is compared with, by name."""
    winner = model.config
    fields = ("vocab_size", "max_seq_length", "quantization")
    obvious = obvious_models(
        lambda one: size_mib(one) <= size_mib(winner),
        tokens,
        **{name: getattr(winner, name) for name in fields},
    )
    found = {"winner": winner}
    if obvious:
        found["obvious"] = obvious[-1]
    return found | {name: as_small(one, winner) for name, one in BASELINES.items()}


def trained(
    folder: Path,
    config: ArchitectureConfig,
    model: LoadedModel,
    given: argparse.Namespace,
    seed: int,
) -> dict[str, float]:
    """Bits per byte of the held-out splits after a training."""
    out = folder / f"seed-{seed}"
    if not (out / "summary.json").exists():
        params = draw_parameters(build_model(config), jax.random.key(seed))
        save_model(folder / "start", config, params, model.tokenizer)
        words = ["train", str(folder / "start"), "--fresh", "--data", given.data]
        words += ["--tokens", str(given.tokens), "--seed", str(seed), "--out", str(out)]
        words += ["--window", str(given.window), "--batch", str(given.batch)]
        words += ["--learning-rate", str(given.learning_rate)]
        words += ["--evaluate-every", "500", "--eval-windows", "128"]
        if (code := command([*words, "--final-windows", "256"])) != 0:
            raise SystemExit(code)
    splits = json.loads((out / "summary.json").read_text())["splits"]
    found = {name: one["winner"]["bits_per_byte"] for name, one in splits.items()}
    return found | {"bigram": splits["test"]["bigram"]["bits_per_byte"]}


def row_of(
    name: str, config: ArchitectureConfig, scores: list[dict[str, float]]
) -> dict[str, Any]:
    """A model's figures, a list of bits per byte a split, by seed."""
    return {
        "name": name,
        "config": config.to_dict(),
        "parameters": stored_parameters(config),
        "mib": round(size_mib(config), 4),
        "test": [round(one["test"], 4) for one in scores],
        "validation": [round(one["validation"], 4) for one in scores],
        "bigram": round(scores[0]["bigram"], 4),
    }


def table_of(rows: list[dict[str, Any]], title: str) -> Table:
    """The models, the best first, with mean and deviation over the seeds."""
    table = plain_table(title, "model", "architecture")
    add_numbers(table, "params", "MiB", "test bits/byte", "std")
    for row in sorted(rows, key=lambda row: np.mean(row["test"])):
        spread = np.std(row["test"], ddof=1) if len(row["test"]) > 1 else 0.0
        words = describe(ArchitectureConfig(**row["config"]))
        figures = f"{np.mean(row['test']):.3f}", f"{spread:.3f}"
        count, size = f"{row['parameters']:,}", f"{row['mib']:.3f}"
        table.add_row(row["name"], words, count, size, *figures)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="whose winner it is")
    parser.add_argument("--data", required=True, metavar="SOURCE")
    parser.add_argument("--tokens", type=int, default=400_000, help="[400000]")
    parser.add_argument("--seeds", type=int, default=3, help="[3]")
    parser.add_argument("--window", type=int, default=64, help="[64]")
    parser.add_argument("--batch", type=int, default=8, help="[8]")
    parser.add_argument("--learning-rate", type=float, default=6e-3, help="[0.006]")
    parser.add_argument("--dir", type=Path, default=Path("runs/baselines"))
    parser.add_argument("--out", type=file_to_write, help="write the rows as JSON")
    given = parser.parse_args()
    began, console = time.monotonic(), plain_console()
    model = load_model(model_in(given.run))
    models = contenders(model, given.tokens)
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for seed in range(given.seeds):
        for name, config in models.items():
            folder = given.dir / name
            scores[name].append(trained(folder, config, model, given, seed))
    rows = [row_of(name, config, scores[name]) for name, config in models.items()]
    if given.out:
        about = {"tokens": given.tokens, "seconds": round(time.monotonic() - began, 1)}
        given.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    console.print(table_of(rows, f"{given.tokens:,} tokens, {given.seeds} seeds"))
    console.print(f"token bigram {rows[0]['bigram']:.3f}")


if __name__ == "__main__":
    main()
