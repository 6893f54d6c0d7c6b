"""A run of three phases: who goes on, what is kept, and a kill in any of them."""

import json
import os
import shutil

import numpy as np
import pytest
from calibrated import keep_calibration
from conftest import FOLDER
from corpus import write_corpus
from test_resume import SETTINGS, launch, resume_and_compare

PHASES = ("8", "24", "48")
FLAGS = {
    **{name: value for name, value in SETTINGS.items() if name != "samples"},
    "phases": ",".join(PHASES),
    "decay-share": 0.5,
    "repeats": 1,
    "final-steps": 5,
    "promote-share": 0.3,
    "lucky": 1,
    "measure-top": 0,
}


def flags(root):
    found = ["--data", f"folder:{root / 'code'}", "--no-baseline"]
    for name, value in FLAGS.items():
        found += [f"--{name}", str(value)]
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A corpus, a cache that all processes share, and an uninterrupted run."""
    root = tmp_path_factory.mktemp("phases")
    write_corpus(root / "code")
    os.symlink(keep_calibration(FOLDER / "runs"), root / "cache")
    done = launch(root, "search", "--out", root / "whole", *flags(root))
    assert done.returncode == 0, done.stderr
    return root


def lines_of(run, name):
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.mark.slow
def test_the_best_and_a_few_by_luck_go_on(workplace):
    run = workplace / "whole"
    summary = json.loads((run / "summary.json").read_text())
    results, later = lines_of(run, "results.jsonl"), lines_of(run, "rungs.jsonl")
    ok = [line for line in results if line["status"] == "ok"]
    by_phase = [
        [line for line in later if line["phase"] == name] for name in PHASES[1:]
    ]
    for before, after in zip((ok, by_phase[0]), by_phase, strict=True):
        by = [line["by"] for line in after]
        assert by.count("rank") == min(3, len(before))
        assert by.count("luck") == min(1, len(before) - 3)
        assert {line["id"] for line in after} <= {line["id"] for line in before}
        # The fittest of a phase is never left behind.
        fittest = max(before, key=lambda line: line["fitness"])
        assert fittest["id"] in [line["id"] for line in after]
        for line in after:
            [same] = [one for one in before if one["id"] == line["id"]]
            assert same["config"] == line["config"]
            assert same["metrics"] != line["metrics"]
    best = max(by_phase[1], key=lambda line: line["fitness"])
    assert summary["winner"]["id"] == best["id"]
    assert [one["steps"] for one in summary["phases"]] == [2, 6, 12]
    [first, _] = summary["trust"]["phases"]
    assert (first["candidates"], first["promoted"]) == (len(ok), 3)
    assert first["promoted"] + first["lucky"] + first["left_behind"] == len(ok)
    noise = summary["trust"]["noise"]
    [own] = [line for line in ok if line["id"] == best["id"]]
    assert noise["accuracies"][0] == own["metrics"]["accuracy"]
    assert noise["std"] == pytest.approx(np.std(noise["accuracies"], ddof=1))


@pytest.mark.slow
def test_a_finished_run_keeps_the_winners_weights_alone(workplace):
    run = workplace / "whole"
    assert not (run / "states").exists()
    weights = [
        path
        for path in run.rglob("*")
        if path.suffix == ".safetensors" or path.stat().st_size > 2**20
    ]
    assert [path.name for path in weights] == ["model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "times"),
    [
        ("state", 2),  # before one of the first phase
        ("state", 6),
        ("line trainings.jsonl", 6),
        ("line rungs.jsonl", 2),
        ("line rungs.jsonl", 5),
        ("file best_weights.safetensors", 3),
    ],
)
def test_killed_in_a_phase_and_resumed(workplace, tmp_path, place, times):
    run = tmp_path / "run"
    done = launch(
        workplace, "search", "--out", run, *flags(workplace), trap=(place, times)
    )
    assert done.returncode == -9, (done.returncode, done.stderr)
    resume_and_compare(workplace, run)
    assert (run / "rungs.jsonl").read_bytes() == (
        workplace / "whole" / "rungs.jsonl"
    ).read_bytes()


@pytest.mark.slow
def test_states_that_are_gone_are_made_again(workplace, tmp_path):
    run = tmp_path / "run"
    trap = ("line rungs.jsonl", 1)
    done = launch(workplace, "search", "--out", run, *flags(workplace), trap=trap)
    assert done.returncode == -9
    kept = {path.name for path in (run / "states").iterdir()}
    shutil.rmtree(run / "states")
    done = launch(workplace, "search", "--resume", run)
    assert done.returncode == 0, done.stderr
    first, second = (lines_of(at, "rungs.jsonl") for at in (workplace / "whole", run))
    assert len(kept) >= 3
    assert [line["id"] for line in first] == [line["id"] for line in second]
    for one, other in zip(first, second, strict=True):
        assert one["metrics"]["loss"] == pytest.approx(
            other["metrics"]["loss"], abs=1e-4
        )


@pytest.mark.slow
def test_a_damaged_state_is_one_line(workplace, tmp_path):
    run = tmp_path / "run"
    trap = ("line trainings.jsonl", 5)
    done = launch(workplace, "search", "--out", run, *flags(workplace), trap=trap)
    assert done.returncode == -9
    for path in (run / "states").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(b"damaged")
    done = launch(workplace, "search", "--resume", run)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "is damaged" in done.stderr
