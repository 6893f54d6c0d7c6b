"""Three phases against training every candidate in full: tokens and quality.

Both searches use the same strategy, space, seed and corpus, and the same training
for the last phase, its warm-up as long as the first phase's. A candidate of either is
ranked among those of the full search: by its accuracy after the last phase, and by
the hypervolume that it dominates alone.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from jaxnas import api
from jaxnas.commands.options import file_to_write
from jaxnas.config import RunConfig, read_toml
from jaxnas.pipeline.build import train_settings
from jaxnas.presets import phases_of
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.results.result import Scored, read_results, scored
from jaxnas.storage.files import write_json
from jaxnas.training.keys import training_key
from jaxnas.training.rungs import rungs_of

DECAY_SHARE = 0.2  # of both
WARMUP_SHARE = 0.1  # of the first phase


def main():
    """Searches, or reads the searches that are done; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/phases"))
    parser.add_argument(
        "--result", type=file_to_write, help="where to write the figures"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--space", default="medium")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--strategy", default="nsga2")
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--generations", type=int, default=2)
    parser.add_argument("--phases", default="440,1120,2560", help="samples of each")
    parser.add_argument("--promote-share", type=float, default=0.2)
    parser.add_argument("--lucky", type=int, default=0, help="per phase, at random")
    parser.add_argument("--max-size", type=float, default=10.0, help="MiB")
    options = parser.parse_args()
    rows = [compare(options, seed) for seed in range(options.seeds)]
    show(rows)
    if options.result is not None:
        write_json(options.result, {"options": _plain(options), "rows": rows})


def compare(options, seed: int) -> dict:
    """Both searches of a seed."""
    runs = [search(options, name, seed) for name in ("phases", "full")]
    return figures(*runs, options)


def search(options, name: str, seed: int) -> Path:
    """The folder of one search, run or gone on with unless it is done."""
    out = options.out / f"{name}-{seed}"
    if (out / "summary.json").exists():
        return out
    if (out / "config.toml").exists():
        api.resume(out)
    else:
        api.search(out, **_settings(options, name, seed))
    return out


def figures(phased: Path, full: Path, options) -> dict:
    """What the phased run reached among the full run's candidates."""
    all_full = scored(read_results(full / "results.jsonl"))
    names = [name.strip() for name in options.phases.split(",")]
    later = scored(read_results(phased / "rungs.jsonl"))
    reached = [result for result in later if result.phase == names[-1]]
    by_rank = [result for result in reached if result.by == "rank"]
    worst = np.asarray([result.objectives for result in all_full]).max(axis=0)
    reference = worst * 1.1
    summary = json.loads((phased / "summary.json").read_text())
    tokens = {
        run: _tokens(folder) for run, folder in (("phases", phased), ("full", full))
    }
    found = {
        "tokens": tokens,
        "tokens_share": tokens["phases"] / tokens["full"],
        "full_candidates": len(all_full),
        "reached": len(reached),
        "correlations": [step["correlation"] for step in summary["trust"]["phases"]],
    }
    for name, value in (("accuracy", _accuracy), ("hypervolume", _alone(reference))):
        ranked = sorted(map(value, all_full), reverse=True)
        best = max(map(value, by_rank))
        found[name] = {
            "best": best,
            "full_best": ranked[0],
            # Share of the full search's candidates that are better.
            "beaten_by": sum(other > best for other in ranked) / len(ranked),
        }
    return found


def show(rows: list[dict]):
    """A line a seed, and the means."""
    table = plain_table("Three phases against full training", "seed")
    add_numbers(table, "tokens", "accuracy", "full's", "better", "better by volume")
    for seed, row in enumerate(rows):
        table.add_row(
            str(seed),
            f"{row['tokens_share']:.1%}",
            f"{row['accuracy']['best']:.4f}",
            f"{row['accuracy']['full_best']:.4f}",
            f"{row['accuracy']['beaten_by']:.1%}",
            f"{row['hypervolume']['beaten_by']:.1%}",
        )
    mean = statistics.fmean
    table.add_row(
        "mean",
        f"{mean(row['tokens_share'] for row in rows):.1%}",
        f"{mean(row['accuracy']['best'] for row in rows):.4f}",
        f"{mean(row['accuracy']['full_best'] for row in rows):.4f}",
        f"{mean(row['accuracy']['beaten_by'] for row in rows):.1%}",
        f"{mean(row['hypervolume']['beaten_by'] for row in rows):.1%}",
    )
    plain_console().print(table)


def _settings(options, name: str, seed: int) -> dict:
    lengths = [int(phase) for phase in options.phases.split(",")]
    full = name == "full"
    return {
        "space": options.space,
        "data": options.data,
        "strategy": options.strategy,
        "population": options.population,
        "generations": options.generations,
        "phases": str(lengths[-1]) if full else options.phases,
        "warmup_share": WARMUP_SHARE * (lengths[0] / lengths[-1] if full else 1.0),
        "decay_share": DECAY_SHARE,
        "promote_share": options.promote_share,
        "lucky": options.lucky,
        "max_size": options.max_size,
        "latency": "estimate",
        "repeats": 0,
        "seed": seed,
        "final_steps": 0,
        "measure_top": 0,
    }


def _tokens(run: Path) -> int:
    """Trained on in all phases: each training counts once, with its decays."""
    config = RunConfig(**read_toml(run / "config.toml"))
    settings = train_settings(config)
    rungs = rungs_of(phases_of(config.phases, config.preset), settings)
    trained = {rungs[0].name: read_results(run / "results.jsonl")}
    for result in read_results(run / "rungs.jsonl") if len(rungs) > 1 else ():
        trained.setdefault(result.phase, []).append(result)
    tokens = 0
    for rung in rungs:
        keys = {
            training_key(result.config)
            for result in trained.get(rung.name, [])
            if result.status != "skipped"
        }
        tokens += len(keys) * rung.new_steps * settings.batch * settings.window
    return tokens


def _accuracy(result: Scored) -> float:
    return result.metrics.accuracy


def _alone(reference: np.ndarray):
    """A candidate's own hypervolume below the reference."""
    return lambda result: float(
        np.prod(np.maximum(0.0, reference - np.asarray(result.objectives)))
    )


def _plain(options) -> dict:
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
    }


if __name__ == "__main__":
    main()
