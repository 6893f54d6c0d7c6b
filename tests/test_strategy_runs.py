"""Runs with `--strategy`, from end to end, and killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import pytest
from calibrated import keep_calibration
from corpus import write_corpus

from arch.spaces import SPACES
from jaxnas.run import main

POPULATION, GENERATIONS = 2, 2
TINY = [
    *("--space", "minimal", "--population", POPULATION, "--generations", GENERATIONS),
    *("--samples", 8, "--window", 16, "--batch", 4, "--vocab-size", 300),
    *("--eval-windows", 8, "--final-windows", 8, "--final-steps", 0),
    *("--checkpoint-every", 1, "--measure-top", 0, "--data", "folder:code"),
    "--no-baseline",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, and a cache that all runs share."""
    root = tmp_path_factory.mktemp("strategies")
    write_corpus(root / "code")
    keep_calibration(root / "cache")
    return root


def slow(strategy):
    """One run from end to end is enough each time."""
    return pytest.param(strategy, marks=pytest.mark.slow)


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "jaxnas.run", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "JAXNAS_CACHE": str(folder / "cache")},
        stdout=subprocess.DEVNULL,
    )


def assert_searched(run, strategy):
    """Every line is another valid model, and the winner is one of them."""
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["strategy"] == strategy
    lines = [
        json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()
    ]
    # One that was seen before has no second line.
    assert POPULATION <= len(lines) <= POPULATION * GENERATIONS
    genomes = [tuple(line["genome"]) for line in lines]
    assert len(set(genomes)) == len(genomes)
    assert all(SPACES["minimal"].valid(genome) for genome in genomes)
    assert {line["status"] for line in lines} == {"ok"}
    best = json.loads((run / "best.json").read_text())
    assert best in [line["config"] for line in lines]


@pytest.mark.parametrize("strategy", [slow("random"), slow("nsga2"), slow("aging")])
def test_a_run_with_each_strategy(folder, monkeypatch, strategy):
    monkeypatch.setenv("JAXNAS_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    arguments = ["--out", strategy, "--strategy", strategy, *TINY]
    assert main(list(map(str, arguments))) == 0
    assert_searched(folder / strategy, strategy)


@pytest.mark.slow
def test_killed_between_generations_and_resumed(folder):
    """The state of local search is the one with most in it."""
    whole, run = folder / "whole", folder / "killed"
    flags = ["--strategy", "local", *TINY]
    assert start(folder, "--out", "whole", *flags).wait(600) == 0
    assert_searched(whole, "local")
    process = start(folder, "--out", "killed", *flags)
    while process.poll() is None and not (run / "checkpoints" / "1").exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (run / "summary.json").exists()
    assert start(folder, "--resume", "killed").wait(600) == 0
    for name in ("results.jsonl", "best.json", "model/model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
