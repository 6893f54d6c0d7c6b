"""A run that is killed at any moment and resumed ends as if it never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from calibrated import keep_calibration
from conftest import FOLDER
from corpus import write_corpus

SETTINGS = {
    "population": 3,
    "generations": 3,
    "samples": 8,
    "window": 16,
    "batch": 4,
    "vocab-size": 300,
    "eval-windows": 8,
    "final-windows": 8,
    "final-steps": 45,
    "checkpoint-every": 1,
    "keep-checkpoints": 2,
    "measure-top": 0,  # the clock's figures differ each time
}
COMPARED = ("results.jsonl", "best.json", "summary.json", "model/model.safetensors")

# Runs the command line with a trap: the process kills itself, as by kill -9, at
# the given place, when it comes there for the n-th time.
TRAP = """
import os, signal, sys, threading, time
place, times, *arguments = sys.argv[1:]
left = int(times)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def due():
    global left
    left -= 1
    return left == 0

import jaxnas.pipeline.run
from jaxnas.pipeline import winner
from jaxnas.population import train_states
from jaxnas.storage import checkpoints, files, jsonl

append, write = jsonl.Lines.append, files.write_whole
save, save_state = checkpoints.Checkpoints.save, train_states.States.save

def torn_append(self, entry):
    if place == "line " + self.path.name and due():
        line = jsonl.to_line(entry)
        self._file.write(line[: len(line) // 2])
        self._file.flush()
        die()
    append(self, entry)

def torn_write(path, content):
    if place == "file " + path.name and due():
        content = content.encode() if isinstance(content, str) else content
        beside = path.with_name(f".{path.name}{files.PARTIAL}")
        beside.write_bytes(content[: len(content) // 2])
        die()
    write(path, content)

def torn_save(self, step, state, *known):
    if place.startswith("checkpoint") and due():
        delay = float(place.split()[1]) / 1000
        threading.Thread(target=lambda: (time.sleep(delay), die()), daemon=True).start()
    save(self, step, state, *known)

def torn_state(self, *arguments):
    if place == "state" and due():
        threading.Thread(target=lambda: (time.sleep(0.05), die()), daemon=True).start()
    save_state(self, *arguments)

train_states.States.save = torn_state
jsonl.Lines.append = torn_append
checkpoints.Checkpoints.save = torn_save
for module in list(sys.modules.values()):
    if getattr(module, "write_whole", None) is write:
        module.write_whole = torn_write
if place == "finishing":
    winner.SAVE_EVERY = 0.0
    go_on = winner.continue_training
    def torn_training(*arguments):
        for result in go_on(*arguments):
            yield result
            if due():
                die()
    winner.continue_training = torn_training
from jaxnas.run import main
sys.exit(main(arguments))
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A corpus, a cache that all processes share, and an uninterrupted run."""
    root = tmp_path_factory.mktemp("resume")
    write_corpus(root / "code")
    os.symlink(keep_calibration(FOLDER / "runs"), root / "cache")
    run = root / "whole"
    done = launch(root, "search", "--out", run, *flags(root))
    assert done.returncode == 0, done.stderr
    return root


def flags(root: Path) -> list[str]:
    found = ["--data", f"folder:{root / 'code'}", "--no-baseline"]
    for name, value in SETTINGS.items():
        found += [f"--{name}", str(value)]
    return found


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "JAXNAS_CACHE": str(root / "cache"), "COLUMNS": "200"}


def launch(root: Path, *arguments, trap: tuple[str, int] | None = None):
    start = [sys.executable, "-m", "jaxnas.run"]
    if trap is not None:
        start = [sys.executable, "-c", TRAP, trap[0], str(trap[1])]
    return subprocess.run(
        [*start, *map(str, arguments)],
        env=environment(root),
        capture_output=True,
        text=True,
        timeout=900,
    )


def assert_same(first: Path, second: Path, names=COMPARED):
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def resume_and_compare(root: Path, run: Path):
    done = launch(root, "search", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert_same(root / "whole", run)
    left_behind = [path.name for path in run.iterdir() if path.name.startswith(".")]
    assert set(left_behind) <= {".lock"}


def also(place, times):
    """One more of a kind that is tried anyway."""
    return pytest.param(place, times, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("place", "times"),
    [
        also("line results.jsonl", 1),
        ("line results.jsonl", 5),
        also("line trainings.jsonl", 2),
        also("line plans.jsonl", 1),
        also("line plans.jsonl", 2),
        also("file best_weights.safetensors", 1),
        also("file model.safetensors", 1),
        also("file summary.json", 1),
        also("file config.toml", 2),
        also("checkpoint 0", 2),
        also("checkpoint 10", 1),
        also("checkpoint 20", 2),
        also("checkpoint 40", 3),
        also("finishing", 2),
    ],
)
def test_killed_at_a_place(workplace, tmp_path, place, times):
    run = tmp_path / "run"
    killed = launch(
        workplace, "search", "--out", run, *flags(workplace), trap=(place, times)
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resume_and_compare(workplace, run)


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(workplace, tmp_path):
    run = tmp_path / "run"
    start = ["search", "--out", run, *flags(workplace), "--measure-top", 1]
    killed = launch(workplace, *start, trap=("file summary.json", 1))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    lines = (run / "timings.jsonl").read_text().splitlines()
    timings = [json.loads(line) for line in lines]
    [measured] = [row for row in timings if "measured" in row]
    done = launch(workplace, "search", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert "measuring" not in done.stdout
    assert "Latency in ms" in done.stdout
    summary = json.loads((run / "summary.json").read_text())
    [finalist] = summary.pop("latency")["finalists"]
    assert finalist["id"] == measured["latency_of"] == summary["winner"]["id"]
    assert finalist["measured"] == measured["measured"]
    whole = json.loads((workplace / "whole" / "summary.json").read_text())
    assert whole.pop("latency") == {"objective": "estimate", "finalists": []}
    assert summary == whole
    assert_same(workplace / "whole", run, COMPARED[:2])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_time_twice(workplace, tmp_path, seed):
    rng = random.Random(seed)
    run = tmp_path / "run"
    arguments = ["search", "--out", str(run), *flags(workplace)]
    kills = 0  # at least the first: JAX alone takes a second to import
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxnas.run", *arguments],
            env=environment(workplace),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not (run / "config.toml").exists():
            time.sleep(0.01)
        try:
            process.wait(rng.uniform(0, 1 if kills == 0 else 8))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        arguments = ["search", "--resume", str(run)]
    assert kills
    resume_and_compare(workplace, run)


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_others(workplace, tmp_path):
    def run(name, *changes):
        out = tmp_path / name
        given = [*flags(workplace), *changes]
        done = launch(workplace, "search", "--out", out, *given)
        assert done.returncode == 0, done.stderr
        return out

    whole, name = workplace / "whole", "results.jsonl"
    assert_same(whole, run("again"))
    other = run("other", "--seed", 1)
    assert (other / name).read_bytes() != (whole / name).read_bytes()


def test_a_finished_run_is_shown_and_left_alone(workplace):
    run = workplace / "whole"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    done = launch(workplace, "search", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert "finished already" in done.stdout
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {".lock"}
