"""Bad input: one clear line, exit code 2, no traceback, nothing left behind."""

import os
import re
import subprocess
import sys

import pytest
from corpus import write_corpus


def run(arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "jaxnas.run", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", "JAXNAS_CACHE": str(folder / ".cache")},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "broken.toml").write_text("population = = 3\n")
    (tmp_path / "unknown.toml").write_text("popluation = 3\n")
    (tmp_path / "type.toml").write_text('population = "many"\n')
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "code.py").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "file").write_text("")
    write_corpus(tmp_path / "code")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "nope"], "no space 'nope': choose minimal, medium, full"),
        (["--space", "medium"], "holds linear_transformer"),
        (["--space", "full"], "holds linear_transformer, flash_attention"),
        (["--config", "broken.toml"], "broken.toml is not TOML"),
        (["--config", "binary.toml"], "binary.toml is not TOML"),
        (["--config", "unknown.toml"], "unknown key 'popluation'; known: space,"),
        (["--config", "type.toml"], "population='many' is not of type int"),
        (["--config", "absent.toml"], "cannot read absent.toml"),
        (["--data", "folder:empty"], "/empty': 0 files seen"),
        (["--data", "folder:binary"], "1 binary"),
        (["--data", "folder:absent"], "/absent' does not exist"),
        (["--data", "nope"], "unknown data source 'nope'"),
        (["--data", "folder:code", "--window", "999999"], "window=999999 is too long"),
        (["--out", "file/run"], "cannot make the folder file/run: Not a directory"),
        (["--population", "0"], "population=0 must be at least 1"),
        (["--population", "many"], "argument --population: invalid int value"),
        (["--learning-rate", "nan"], "learning_rate=nan must be finite"),
        (["--resume", "nowhere"], "nowhere does not exist"),
        (["--resume", "empty"], "empty holds no run"),
        (["--out", "a", "--resume", "b"], "not allowed with"),
        (["--nope", "3"], "unrecognized arguments: --nope 3"),
        (["--hardware", "abacus"], "no hardware 'abacus': choose auto, cpu-core"),
        (["--size-target", "900"], "above size_target=900"),
        (["frobnicate"], "no command 'frobnicate': choose search, space, baselines"),
        (["space", "nope"], "no space 'nope'"),
        (["space"], "NAME"),
        (["baselines", "--hardware", "abacus"], "no hardware 'abacus'"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, said):
    before = {path for path in folder.rglob("*") if ".cache" not in path.parts}
    done = run(arguments, folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    after = {path for path in folder.rglob("*") if ".cache" not in path.parts}
    assert after - {folder / "runs"} == before


def test_help_names_every_setting_and_command(folder):
    done = run(["--help"], folder)
    assert done.returncode == 0
    for word in ("--population", "--resume", "--out", "--config", "space", "baselines"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("minimal", ("8", "8", "8")),
        ("medium", ("73,728", "55,296", "41,472")),
        ("full", ("35,831,808", "30,523,392", "11,624,256")),
    ],
)
def test_space_prints_its_counts(folder, name, counts):
    done = run(["space", name], folder)
    assert done.returncode == 0
    assert re.findall(r"^ *([\d,]+)  ", done.stdout, re.MULTILINE)[:3] == list(counts)


def test_baselines_prints_the_known_figures(folder):
    done = run(["baselines"], folder)
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "49.0M" in rows["gpt2-like"]
    assert "93.5" in rows["gpt2-like"]
    assert "69.3M" in rows["llama-like"]
    assert "27.7M" in rows["ultra-small"]
    assert "61.4M" in rows["mamba"]
    assert "117.1" in rows["mamba"]


@pytest.mark.slow
def test_damaged_run_folders(folder):
    """Each damage to a begun run is one line; the next step mends it."""
    settings = ["--population", 2, "--generations", 1, "--samples", 4, "--window", 16]
    settings += ["--vocab-size", 300, "--eval-windows", 4, "--final-windows", 4]
    settings += ["--final-steps", 0, "--data", "folder:code"]
    made = run(["--out", "run", *settings], folder)
    assert made.returncode == 0, made.stderr
    results = (folder / "run" / "results.jsonl").read_bytes()

    again = run(["--out", "run", *settings], folder)
    assert again.returncode == 2
    assert "holds a run already: go on with --resume run" in again.stderr

    changed = run(["--resume", "run", "--population", 5], folder)
    assert changed.returncode == 2
    assert "leave out --population" in changed.stderr

    (folder / "run" / "summary.json").unlink()
    checkpoint = folder / "run" / "checkpoints" / "1"
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(b"garbage")
    damaged = run(["--resume", "run"], folder)
    assert damaged.returncode == 2
    assert len(damaged.stderr.splitlines()) == 1
    assert "checkpoint" in damaged.stderr
    assert (folder / "run" / "results.jsonl").read_bytes() == results

    for path in sorted(checkpoint.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    checkpoint.rmdir()
    mended = run(["--resume", "run"], folder)
    assert mended.returncode == 0, mended.stderr
    assert (folder / "run" / "results.jsonl").read_bytes() == results

    (folder / "code" / "module_000.py").write_text("print('changed')\n" * 50)
    (folder / "run" / "summary.json").unlink()
    moved = run(["--resume", "run"], folder)
    assert moved.returncode == 2
    assert "the data changed" in moved.stderr
