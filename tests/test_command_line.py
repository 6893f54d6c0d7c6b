"""Bad input: one clear line, exit code 2, no traceback, nothing left behind."""

import json
import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest
from calibrated import keep_calibration
from corpus import write_corpus

import jaxnas
from arch.published import KNOWN
from jaxnas.run import main
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.single import TrainingFailed


def own(folder):
    """Variables of the environment."""
    return {"COLUMNS": "120", "JAXNAS_CACHE": str(folder / ".cache")}


def run_outside(arguments, folder):
    """In a process of its own, which takes seconds to import JAX."""
    return subprocess.run(
        [sys.executable, "-m", "jaxnas.run", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **own(folder)},
        capture_output=True,
        text=True,
        timeout=600,
    )


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """The same in this process; an exception that is not caught fails the test."""
    monkeypatch.chdir(folder)
    for name, value in own(folder).items():
        monkeypatch.setenv(name, value)

    def call(arguments):
        capsys.readouterr()
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as left:  # after --help
            code = left.code or 0
        return Done(code, *capsys.readouterr())

    return call


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
    keep_calibration(tmp_path / ".cache")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "nope"], "space='nope' must be one of minimal, medium, full"),
        (["--config", "broken.toml"], "broken.toml is not TOML"),
        (["--config", "binary.toml"], "binary.toml is not UTF-8"),
        (["--config", "unknown.toml"], "unknown key 'popluation'; known: space,"),
        (["--config", "type.toml"], "population='many' is not of type int"),
        (["--config", "absent.toml"], "cannot read absent.toml"),
        (["--data", "folder:empty"], "/empty': 0 files seen"),
        (["--data", "folder:binary"], "1 binary"),
        (["--data", "folder:absent"], "/absent' does not exist"),
        (["--data", "nope"], "unknown data source 'nope'"),
        (["--data", "folder:code", "--window", "99999"], "window=99999 is too long"),
        (["--out", "a/b/c", "--data", "nope"], "unknown data source 'nope'"),
        (["--out", "code"], "code is not empty: choose another --out"),
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
        (["frobnicate"], "no command 'frobnicate': choose search, ship, train"),
        (["serch"], "no command 'serch': did you mean search?"),
        (["--bugdet", "5m"], "unrecognized arguments: --bugdet 5m; did you mean"),
        (["space", "nope"], "no space 'nope'"),
        (["space", "minimal", "--seed", "9" * 20], "must be at most 4,294,967,295"),
        (["space"], "NAME"),
        (["baselines", "--hardware", "abacus"], "no hardware 'abacus'"),
        (["calibrate", "--out", "empty"], "empty is a folder"),
        (["calibrate", "--out", "file/x"], "cannot make the folder file: File exists"),
    ],
)
def test_bad_input_is_one_line(folder, run, arguments, said):
    before = {path for path in folder.rglob("*") if ".cache" not in path.parts}
    done = run(arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    after = {path for path in folder.rglob("*") if ".cache" not in path.parts}
    assert after == before


@pytest.mark.parametrize(
    "arguments", [["--size-target", "900"], ["--data", "nope"], ["frobnicate"]]
)
@pytest.mark.sweep(3)
def test_a_process_says_and_returns_the_same(folder, run, arguments):
    alone = run_outside(arguments, folder)
    assert Done(alone.returncode, alone.stdout, alone.stderr) == run(arguments)


def test_help_names_every_setting_and_command(run):
    done = run(["--help"])
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
def test_space_prints_its_counts(run, name, counts):
    done = run(["space", name])
    assert done.returncode == 0
    assert re.findall(r"^ *([\d,]+)  ", done.stdout, re.MULTILINE)[:3] == list(counts)


def test_baselines_prints_the_known_figures(run):
    done = run(["baselines"])
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "49.0M" in rows["gpt2-like"]
    assert "93.5" in rows["gpt2-like"]
    assert "69.3M" in rows["llama-like"]
    assert "27.7M" in rows["ultra-small"]
    assert "61.4M" in rows["mamba"]
    assert "117.1" in rows["mamba"]
    for name, known in KNOWN.items():
        assert rows[name].split()[-2:] == [f"{known.parameters:,}"] * 2


TINY = [
    *("--population", 2, "--generations", 1, "--samples", 4, "--window", 16),
    *("--vocab-size", 300, "--eval-windows", 4, "--final-windows", 4),
    *("--final-steps", 0, "--measure-top", 0, "--data", "folder:code"),
    "--no-baseline",
]


def test_a_folder_with_other_things_is_left_as_it_is(folder, run):
    mine = folder / "mine"
    mine.mkdir()
    for name in ("manifest.json", "results.jsonl", "trainings.jsonl", "notes.txt"):
        (mine / name).write_text("{}\n")
    for arguments in (TINY, ["--space", "medium"]):
        done = run(["--out", "mine", *arguments])
        assert done.returncode == 2
        assert "mine is not empty" in done.stderr
    for path in mine.iterdir():
        assert path.read_text() == "{}\n"


@pytest.mark.slow
def test_two_starts_at_once_get_two_folders(folder):
    start = [sys.executable, "-m", "jaxnas.run", *map(str, TINY)]
    where = {
        "cwd": folder,
        "env": {**os.environ, **own(folder)},
        "stdout": subprocess.DEVNULL,
    }
    both = [subprocess.Popen(start, **where) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    first, second = sorted((folder / "runs").iterdir())
    assert [path.name[-4:] for path in (first, second)] == ["-001", "-002"]
    found = [(path / "results.jsonl").read_bytes() for path in (first, second)]
    assert found[0] == found[1] != b""


def test_a_folder_in_use_is_refused_and_not_touched(folder):
    (folder / "busy").mkdir()
    with RunFolder(folder / "busy").locked():
        done = run_outside(["--out", "busy", *TINY], folder)
    assert done.returncode == 2
    assert "busy is in use by another process" in done.stderr
    assert (folder / "busy").is_dir()


@pytest.mark.slow
def test_a_winner_that_diverges_stays_as_it_was_searched(folder, monkeypatch):
    def diverge(*_):
        raise TrainingFailed("the training loss is nan at step 7")

    monkeypatch.setenv("JAXNAS_CACHE", str(folder / ".cache"))
    monkeypatch.setattr("jaxnas.pipeline.finish.train_on", diverge)
    settings = {
        name[2:].replace("-", "_"): value
        for name, value in zip(TINY[:-1:2], TINY[1:-1:2], strict=True)
    }
    settings["baseline"] = False
    settings |= {"data": f"folder:{folder / 'code'}", "final_steps": 9}
    summary = jaxnas.search(folder / "run", **settings)
    assert summary["final"]["steps"] == 0
    assert "nan at step 7" in summary["final"]["reason"]
    assert "nan at step 7" in (folder / "run" / "failures.log").read_text()
    best = json.loads((folder / "run" / "best.json").read_text())
    saved = jaxnas.load_model(folder / "run" / "model").config
    assert saved.num_layers == best["num_layers"]


@pytest.mark.slow
def test_damaged_run_folders(folder, run):
    """Each damage to a begun run is one line; the next step mends it."""
    made = run(["--out", "run", *TINY])
    assert made.returncode == 0, made.stderr
    results = (folder / "run" / "results.jsonl").read_bytes()

    again = run(["--out", "run", *TINY])
    assert again.returncode == 2
    assert "holds a run already: go on with --resume run" in again.stderr

    changed = run(["--resume", "run", "--population", 5])
    assert changed.returncode == 2
    assert "leave out --population" in changed.stderr

    checkpoint = folder / "run" / "checkpoints" / "1"
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(b"garbage")
    for summary in ("there", "gone"):  # a finished run, and one that is not
        damaged = run(["--resume", "run"])
        assert damaged.returncode == 2, summary
        assert len(damaged.stderr.splitlines()) == 1
        assert "checkpoint" in damaged.stderr
        (folder / "run" / "summary.json").unlink(missing_ok=True)
    assert (folder / "run" / "results.jsonl").read_bytes() == results

    for path in sorted(checkpoint.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    checkpoint.rmdir()
    repaired = run(["--resume", "run"])
    assert repaired.returncode == 0, repaired.stderr
    assert (folder / "run" / "results.jsonl").read_bytes() == results

    config = folder / "run" / "config.toml"
    for name, damage, said in (
        ("summary.json", "{", "summary.json or"),
        ("manifest.json", "{}", "manifest.json is damaged"),
        ("trainings.jsonl", "{}\n", "trainings.jsonl is damaged at line 1"),
        ("plans.jsonl", "{}\n", "plans.jsonl is damaged at line 1"),
        ("results.jsonl", "[]\n" * 9, "results.jsonl is damaged"),
        ("config.toml", config.read_text() + "beta = 1\n", "unknown key 'beta'"),
        (
            "config.toml",
            config.read_text().replace("window = 16", "window = 8"),
            "window 16 -> 8",
        ),
    ):
        path = folder / "run" / name
        summary = folder / "run" / "summary.json"
        kept = path.read_bytes(), summary.read_bytes()
        if name != summary.name:
            summary.unlink()
        path.write_text(damage)
        damaged = run(["--resume", "run"])
        assert (damaged.returncode, len(damaged.stderr.splitlines())) == (2, 1), name
        assert said in damaged.stderr
        path.write_bytes(kept[0])
        summary.write_bytes(kept[1])

    (folder / "run" / "summary.json").unlink()
    (folder / "code" / "module_000.py").write_text("print('changed')\n" * 50)
    moved = run(["--resume", "run"])
    assert moved.returncode == 2
    assert "corpus_hash" in moved.stderr


@pytest.mark.parametrize("name", ["search", "compress", "evaluate", "export"])
def test_the_prose_of_help_fits_the_terminal(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    about = capsys.readouterr().out.split("\n\n")[1]
    assert max(map(len, about.splitlines())) <= 60


def test_a_flag_says_what_it_takes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for words in ("--budget TIME", "--data SOURCE", "--warm-start RUN"):
        assert words in printed
