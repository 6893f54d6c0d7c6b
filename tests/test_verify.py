"""Damage to a run's folder is found, named, and refused by a resume."""

import json
import re
import shutil

import numpy as np
import pytest
from corpus import write_corpus

import jaxnas
from jaxnas import run as command
from jaxnas.errors import UsageError
from jaxnas.pipeline.verify import verify
from jaxnas.population.train_states import States
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.jsonl import Lines, to_line
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.loop import TrainState

SETTINGS = {
    "population": 3,
    "generations": 2,
    "samples": 8,
    "window": 16,
    "batch": 4,
    "vocab_size": 300,
    "eval_windows": 8,
    "final_windows": 8,
    "final_steps": 4,
    "checkpoint_every": 1,
    "keep_checkpoints": 2,
    "measure_top": 0,
    "baseline": False,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("verify")
    write_corpus(root / "code")
    jaxnas.search(root / "run", data=f"folder:{root / 'code'}", **SETTINGS)
    return root / "run"


def contents(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def unfinished(copy):
    """What a run of several phases with a budget holds behind its last phase."""
    run = RunFolder(copy)
    run.summary.unlink()
    run.budget.write_text('{"spent": 12.5, "decided": {}}')
    run.stopped.write_text('{"generations": 2, "id": 3}')
    weights = {"table": np.arange(999.0)}
    Checkpoints(run.finishing / "abc-0.0-1-4", keep=1).save(2, weights)
    States(run.states).save("abc", TrainState(weights, weights, np.int32(2)))
    for folder in (run.checkpoints, run.states):  # as a kill leaves them
        (folder / "9.orbax-checkpoint-tmp-1").mkdir()
    return run.path


def wrong(run):
    return {part.name: part for part in verify(RunFolder(run)) if part.lost}


def test_a_whole_run_belongs_together(whole, capsys):
    before = contents(whole)
    assert wrong(whole) == {}
    assert command.main(["verify", str(whole)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"{whole} belongs together"
    assert any(line.startswith("ok    results.jsonl   ") for line in printed)
    assert contents(whole) == before


def test_an_unfinished_run_is_read_and_not_changed(unfinished, capsys):
    """What a kill has left behind stays, and no lock is made."""
    run = unfinished
    (run / ".lock").unlink()
    before, names = contents(run), sorted(run.rglob("*"))
    assert command.main(["verify", str(run)]) == 0
    said = capsys.readouterr().out
    parts = [line.split()[1] for line in said.splitlines() if line.startswith("ok ")]
    assert [part.split("/")[0] for part in parts] == [
        *("config.toml", "manifest.json", "budget.json", "stopped.json"),
        *("results.jsonl", "trainings.jsonl", "plans.jsonl", "rungs.jsonl"),
        *(
            "timings.jsonl",
            "checkpoints",
            "finishing",
            "states",
            "model",
            "summary.json",
        ),
    ]
    assert contents(run) == before
    assert sorted(run.rglob("*")) == names


def test_a_run_is_verified_by_any_path_to_it(unfinished, monkeypatch, capfd):
    monkeypatch.chdir(unfinished.parent)
    assert command.main(["verify", unfinished.name]) == 0
    assert "checkpoints/2   whole" in capfd.readouterr().out


def test_a_run_that_is_worked_on_is_left_alone(unfinished, capsys):
    with RunFolder(unfinished).locked():
        assert command.main(["verify", str(unfinished)]) == 2
    assert "is in use by another process" in capsys.readouterr().err


def flipped(folder):
    """Changes a byte in the middle of the arrays that are saved in a folder."""

    def damage(run):
        [path] = (run / folder).rglob("state/d/*")
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 255
        path.write_bytes(bytes(raw))

    return damage


def written(name, text):
    return lambda run: (run / name).write_text(text)


def cut(run):
    path = run / "manifest.json"
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (flipped("states"), "states/"),
        (flipped("finishing"), "finishing/"),
        (cut, "manifest.json"),
        (written("manifest.json", "{}"), "manifest.json"),
        (written("budget.json", '{"spent": "long"}'), "budget.json"),
        (written("stopped.json", "[]"), "stopped.json"),
        (written("config.toml", "population = 3"), "config.toml"),
    ],
)
def test_damage_that_a_resume_refuses_is_found(unfinished, damage, part):
    damage(unfinished)
    [found] = wrong(unfinished)
    assert found.startswith(part)
    assert command.main(["verify", str(unfinished)]) == 1


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


def twice(run):
    path = run / "results.jsonl"
    first, *others = lines_of(path)
    path.write_bytes(b"".join([first, first, *others]))


def better(run):
    path = run / "results.jsonl"
    first, *others = lines_of(path)
    fitness = json.loads(first)["fitness"]
    changed = first.replace(f'"fitness": {fitness!r}'.encode(), b'"fitness": 0.99')
    assert changed != first
    path.write_bytes(b"".join([changed, *others]))


def without_the_last(name):
    def damage(run):
        path = run / name
        path.write_bytes(b"".join(lines_of(path)[:-1]))

    return damage


def of_another_run(run):
    """Whole in itself, with digests of its own."""
    path = run / "results.jsonl"
    rows = [json.loads(line) for line in lines_of(path)]
    path.unlink()
    with Lines(path) as lines:
        for row in rows:
            del row["chain"]
            lines.append(row | {"id": row["id"] + 1})


def nested(run):
    (run / "trainings.jsonl").write_bytes(b'{"a": ' + b"[" * 100_000 + b"\n")


def odd_curve(run):
    path = run / "trainings.jsonl"
    first, *_ = [json.loads(line) for line in lines_of(path)]
    del first["chain"]
    path.write_bytes(to_line(first | {"curve": [["one", "two"]]}))


@pytest.mark.parametrize(
    ("damage", "part", "said"),
    [
        (twice, "results.jsonl", "it is not what was written there"),
        (better, "results.jsonl", "it is not what was written there"),
        (without_the_last("results.jsonl"), "checkpoints/2", "results.jsonl"),
        (without_the_last("trainings.jsonl"), "checkpoints/2", "trainings.jsonl"),
        (without_the_last("plans.jsonl"), "checkpoints/2", "plans.jsonl"),
        (of_another_run, "checkpoints/2", "lines of results.jsonl are others"),
        (nested, "trainings.jsonl", "nested too deeply"),
        (odd_curve, "trainings.jsonl", "it is no record"),
    ],
)
@pytest.mark.sweep(3)
def test_what_does_not_belong_is_found_and_refused(copy, damage, part, said):
    damage(copy)
    found = wrong(copy)
    assert said in found[part].said
    assert command.main(["verify", str(copy)]) == 1
    before = (copy / "results.jsonl").read_bytes()
    for summary in ("there", "gone"):
        with pytest.raises(UsageError) as raised:
            jaxnas.resume(copy)
        assert "\n" not in str(raised.value), summary
        assert re.search(rf"{part}|(results|trainings|plans)\.jsonl", str(raised.value))
        (copy / "summary.json").unlink(missing_ok=True)
    assert (copy / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model/model.safetensors", "has changed"),
        ("model/config.json", "has changed"),
        ("best.json", "has changed"),
        ("summary.json", "another winner"),
    ],
)
def test_a_finished_run_with_another_model_is_not_shown(copy, name, said):
    path = copy / name
    if name == "summary.json":
        summary = json.loads(path.read_text())
        summary["winner"]["id"] += 1
        path.write_text(json.dumps(summary))
    else:
        raw = bytearray(path.read_bytes())
        raw[-3] ^= 1
        path.write_bytes(bytes(raw))
    assert said in wrong(copy)["summary.json"].said
    with pytest.raises(UsageError, match=r"run is damaged: (model|summary\.json)"):
        jaxnas.resume(copy)


@pytest.mark.parametrize("settings", ["", "population = 3\n"])
def test_settings_that_no_run_wrote_start_none(copy, settings):
    (copy / "config.toml").write_text(settings)
    with pytest.raises(UsageError, match=r"cannot resume: .* lacks data, seed"):
        jaxnas.resume(copy)


def test_a_finished_run_of_an_earlier_version_is_shown(copy, capsys):
    path = copy / "summary.json"
    summary = json.loads(path.read_text())
    del summary["final"]["baseline"], summary["final"]["gain"], summary["files"]
    path.write_text(json.dumps(summary))
    assert command.main(["verify", str(copy)]) == 0
    assert "of an earlier version, without digests" in capsys.readouterr().out
    assert jaxnas.resume(copy)["winner"] == summary["winner"]
    assert "is finished already" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_goes_on(copy, capsys, monkeypatch):
    """Lines and checkpoints without digests are taken as they are, which is said."""
    results = [json.loads(line) for line in lines_of(copy / "results.jsonl")]
    for name in ("results.jsonl", "trainings.jsonl", "plans.jsonl", "timings.jsonl"):
        rows = [json.loads(line) for line in lines_of(copy / name)]
        for row in rows:
            del row["chain"]
        (copy / name).write_bytes(b"".join(map(to_line, rows)))
    monkeypatch.setattr(Checkpoints, "known", lambda checkpoints: None)
    (copy / "summary.json").unlink()
    assert wrong(copy) == {}
    jaxnas.resume(copy)
    assert "an earlier version wrote this run" in capsys.readouterr().out
    again = [json.loads(line) for line in lines_of(copy / "results.jsonl")]
    assert [row["fitness"] for row in again] == [row["fitness"] for row in results]
