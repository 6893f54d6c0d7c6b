"""A run's folder with results that no training made."""

import json

import numpy as np
from results import made_result

from arch.spaces import SPACES
from jaxnas.config import RunConfig
from jaxnas.keys import key_of
from jaxnas.storage.jsonl import to_line
from jaxnas.storage.run_folder import LOCK, RunFolder


def drawn_results(number=24, seed=0, generation=12):
    """Candidates of the space nano; wide ones are better, all else is noise."""
    random = np.random.default_rng(seed)
    space = SPACES["nano"]
    genomes = space.sample(key_of(seed, "drawn"), number)
    results = []
    for identity, genome in enumerate(genomes):
        config = space.decode(genome)
        accuracy = 0.1 + config.hidden_dim / 1000 + random.normal() / 300
        results.append(
            made_result(
                identity,
                config=config,
                generation=identity // generation,
                accuracy=accuracy,
                bits_per_byte=3 - accuracy,
                size=config.hidden_dim * config.num_layers / 500,
                latency=config.num_layers / 3 + random.uniform(0, 0.2),
            )
        )
    return results


def written_summary(bits):
    """The summary of a run whose winner has so many bits per byte."""
    winner = {"bits_per_byte": bits, "accuracy": 0.3}
    ngram = {"bits_per_byte": 3.0, "accuracy": 0.1}
    split = {"windows": 8, "winner": winner, "unigram": ngram, "bigram": ngram}
    noise = {"phase": "x", "accuracies": [], "std": None, "std_over_candidates": None}
    search = dict.fromkeys(("evaluated", "trainings", "ok", "failed", "skipped"), 0)
    lists = {name: [] for name in ("generations", "front", "top")}
    parts = {name: {} for name in ("spread", "objectives", "families")}
    return {
        "winner": {"id": 0, "config": {}},
        "search": search | lists | parts | {"exhausted": False},
        "final": {
            "steps": 1,
            "reason": None,
            "splits": {"validation": split, "test": split},
        }
        | {"baseline": [], "gain": None},
        "phases": [],
        "trust": {"phases": [], "noise": noise},
        "latency": {"objective": "estimate", "finalists": []},
        "files": {},
    }


def written_run(path, results=None, summary=None, failures=None):
    """The folder of a search, as far as it has come."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.config.write_text(RunConfig(space="nano", generations=2).to_toml())
    (path / LOCK).touch()
    rows = drawn_results() if results is None else results
    folder.results.write_bytes(b"".join(to_line(one.to_row()) for one in rows))
    timings = [
        {"buckets": 3, "predicted": 10.0, "seconds": 12.5},
        {"stage": "search", "seconds": 30.0},
    ]
    folder.timings.write_bytes(b"".join(map(to_line, timings)))
    if summary is not None:
        folder.summary.write_text(json.dumps(summary))
    if failures is not None:
        folder.failures.write_text(failures)
    return folder
