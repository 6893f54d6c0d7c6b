"""`report`, `status` and `show`: a run or a model looked at, nothing changed."""

import dataclasses
import fcntl
import json
import os
import types

import jax
import pytest
from corpus import write_corpus
from results import made_result
from written_run import drawn_results, written_run, written_summary

from arch.baselines import BASELINES
from arch.padding import parameter_shapes
from jaxnas.benchmarks.lines import held_out
from jaxnas.commands import compare, report, show, status, verify
from jaxnas.config import RunConfig
from jaxnas.data import prepare, train_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import save_model
from jaxnas.pipeline import completions
from jaxnas.pipeline import report as page
from jaxnas.report.standing import last_written, lines_of, standing
from jaxnas.report.tables import plain_console
from jaxnas.results.record import read_record
from jaxnas.storage.jsonl import to_line
from jaxnas.storage.run_folder import LOCK


@pytest.fixture
def run(tmp_path):
    return written_run(tmp_path / "run")


def test_a_stopped_run_says_how_to_go_on(run, capsys):
    status.main([str(run.path)])
    said = capsys.readouterr().out
    assert f"go on with python -m jaxnas.run --resume {run.path}" in said
    assert "stopped while training the best on in later phases" in said
    assert "candidates  24 (24 ok)" in said
    assert "generation  2 of 2" in said
    best = max(drawn_results(), key=lambda one: one.fitness)
    assert f"best        #{best.id}" in said


def test_a_run_that_is_worked_on_is_running(run):
    with (run.path / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert read_record(run.path).state == "running"
    assert read_record(run.path).state == "stopped"


def test_what_is_left_is_counted_by_the_candidates_so_far(tmp_path):
    run = written_run(tmp_path / "half", drawn_results(12))
    run.timings.write_text('{"buckets": 3, "predicted": 5.0, "seconds": 24.0}\n')
    about = standing(read_record(run.path), last_written(run.path))
    assert about["doing"] == "searching"
    assert about["left"] == 24.0  # as many again
    assert "left        about 0:24 of the search" in lines_of(about)
    assert about["spent"] is None
    assert about["resumable"]


def test_what_is_spent_of_a_budget_grows_by_the_second(run):
    """However lately a page, a plan or a checkpoint was written."""
    config = RunConfig(space="nano", generations=2, budget="10m")
    run.config.write_text(config.to_toml())
    run.budget.write_text('{"spent": 100.0, "decided": {}}')
    written = run.budget.stat().st_mtime
    for path in run.path.iterdir():
        os.utime(path, (written + 50, written + 50))
    os.utime(run.budget, (written, written))
    run.report.write_text("")
    os.utime(run.report, (written + 55, written + 55))
    with run.locked():
        about = standing(read_record(run.path), written + 60)
    assert about["spent"] == pytest.approx(160)
    assert about["left"] == pytest.approx(440)
    assert about["silent"] == pytest.approx(10)
    assert "left        about 7:20 of the budget" in lines_of(about)
    stopped = standing(read_record(run.path), written + 60)
    assert stopped["spent"] == 100


def test_what_was_read_is_not_read_again(run):
    best = read_record(run.path).results[7]
    later = dataclasses.replace(best, phase="1600")
    run.rungs.write_bytes(to_line(later.to_row()))
    record = read_record(run.path)
    run.rungs.unlink()
    assert record.best == later


def test_programs_can_read_it(run, capsys):
    status.main([str(run.path), "--json"])
    about = json.loads(capsys.readouterr().out)
    assert about["ok"] == about["candidates"] == 24
    assert about["best"]["config"]["vocab_size"]


def test_a_report_lies_where_it_is_asked_for(run, tmp_path, capsys):
    file = tmp_path / "there" / "page.html"
    report.main([str(run.path), "--out", str(file)])
    assert str(file) in capsys.readouterr().out
    assert file.read_text().startswith("<!doctype html>")
    before = {path.name for path in run.path.iterdir()}
    report.main([str(run.path)])
    assert {path.name for path in run.path.iterdir()} == before | {"report.html"}


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (status, ["nowhere"], "does not exist"),
        (status, ["."], "holds no run"),
        (report, ["nowhere"], "does not exist"),
        (show, ["nowhere"], "no shape 'nowhere'"),
        (show, ["mamba", "--id", "3"], "no run of a search"),
        (show, ["~nosuchuser/x"], "no such user"),
        (status, ["x" * 300], "does not exist"),
        (report, ["x" * 300], "does not exist"),
        (verify, ["x" * 300], "does not exist"),
        (show, ["x" * 300], "no shape 'x"),
        (compare, ["x" * 300, "llama-3-8b"], "no shape 'x"),
        (compare, ["~nosuchuser/x", "llama-3-8b"], "no such user"),
        (status, ["a\0b"], "does not exist"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(
    command, arguments, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        command.main(arguments)


@pytest.mark.parametrize("command", [status, report, show])
def test_a_run_of_an_earlier_version_is_shown(command, run, capsys):
    """Before 0.1.0 a summary had no obvious models and no digests."""
    summary = written_summary(1.5)
    del summary["final"]["baseline"], summary["final"]["gain"], summary["files"]
    run.summary.write_text(json.dumps(summary))
    run.completions.write_text('{"completions": []}')
    command.main([str(run.path)])
    assert str(run.path) in capsys.readouterr().out


def test_a_gain_over_no_model_is_damage(run):
    summary = written_summary(1.5)
    sums = {"bits_per_byte": 0.1, "standard_error": None, "windows": 8}
    gain = {"over": 0, "splits": {"validation": sums, "test": sums}}
    run.summary.write_text(
        json.dumps(summary | {"final": summary["final"] | {"gain": gain}})
    )
    with pytest.raises(UsageError, match="damaged: no obvious model 0"):
        read_record(run.path)


def test_damage_is_said_in_a_line(run):
    run.results.write_text("{}\n")
    with pytest.raises(UsageError, match="damaged in line 1"):
        status.main([str(run.path)])
    run.results.unlink()
    run.summary.write_text("[]")
    with pytest.raises(UsageError, match="no JSON object"):
        status.main([str(run.path)])


def test_a_candidate_is_shown_by_its_number(run, tmp_path, capsys):
    file = tmp_path / "drawing.svg"
    show.main([str(run.path), "--id", "3", "--svg", str(file)])
    said = capsys.readouterr().out
    assert "candidate #3" in said
    config = read_record(run.path).results[3].config
    assert config.arch_type.replace("_", " ") in file.read_text()
    with pytest.raises(UsageError, match="no such candidate, 0 to 23"):
        show.main([str(run.path), "--id", "24"])


def test_a_saved_model_is_shown(tmp_path, capsys):
    config = BASELINES["ultra-small"]
    params = jax.tree.map(
        lambda leaf: jax.numpy.zeros(leaf.shape), parameter_shapes(config)
    )
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"], 257)
    saved = save_model(tmp_path / "model", config, params, tokenizer)
    show.main([str(tmp_path / "model")])
    said = capsys.readouterr().out
    assert f"4 heads of {saved.head_dim}" in said
    assert "together" in said


def test_test_files_are_read_back_from_their_tokens(tmp_path):
    code = write_corpus(tmp_path / "code")
    dataset = prepare(f"folder:{code}", 300, tmp_path / "cache")
    found = sorted(file.text for file in completions.test_files(dataset))
    assert found == sorted(file.text for file in held_out(f"folder:{code}"))
    assert len(found) > 1


def test_completions_are_read_back_and_damage_is_said(run):
    assert completions.stored_completions(run) is None
    rows = [{"before": "a\nb", "written": "c", "line": "d"}]
    run.completions.write_text(json.dumps({"completions": rows}))
    assert completions.stored_completions(run) == rows
    run.completions.write_text('{"completions": [{}]}')
    with pytest.raises(UsageError, match="damaged"):
        completions.stored_completions(run)


def test_a_file_that_cannot_be_is_refused_before_any_work(run, capsys):
    with pytest.raises(SystemExit):
        show.main([str(run.path), "--svg", "x" * 300])
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.parametrize("left", [5.0, 500.0])
def test_a_budget_that_is_nearly_spent_has_no_time_for_completions(
    run, monkeypatch, capsys, left
):
    run.summary.write_text(json.dumps(written_summary(1.5)))
    asked = []
    monkeypatch.setattr(page, "complete", lambda *given: asked.append(given) or [])
    clock = types.SimpleNamespace(left=lambda: left)
    page.write_report(run, None, clock, plain_console())
    assert bool(asked) == (left > page.COMPLETING)
    assert run.report.exists()
    assert str(run.report) in capsys.readouterr().out


def test_a_run_that_found_nothing_leaves_a_page_that_says_why(tmp_path, capsys):
    failed = [made_result(n, status="failed", generation=n) for n in range(2)]
    run = written_run(tmp_path / "run", failed)
    page.write_report(run, None, types.SimpleNamespace(left=float), plain_console())
    assert str(run.report) in capsys.readouterr().out
    text = run.report.read_text()
    assert "ended without a model" in text
    assert "None of 2 candidates has succeeded" in text
    assert "--resume" not in text
    assert "TrainingFailed: nan" in text


def test_a_run_ends_well_without_its_page(run, capsys):
    run.results.write_text("{}\n")
    page.write_report(run, None, types.SimpleNamespace(left=float), plain_console())
    assert "no report was written: UsageError" in capsys.readouterr().out
