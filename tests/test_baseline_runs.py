"""Whole runs with an obvious model beside the winner, and without one."""

import json
import re
import signal

import pytest
from calibrated import keep_calibration
from corpus import write_corpus
from test_resume import SETTINGS, assert_same, launch

from jaxnas.storage.jsonl import read_lines

pytestmark = pytest.mark.slow

FLAGS = SETTINGS | {"population": 8, "generations": 1, "max-size": 8}


def flags(root, *more):
    found = ["--data", f"folder:{root / 'code'}", *more]
    for name, value in FLAGS.items():
        found += [f"--{name}", str(value)]
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A corpus, a cache that all processes share, and a run of either kind."""
    root = tmp_path_factory.mktemp("baseline")
    write_corpus(root / "code")
    keep_calibration(root / "cache")
    for name, more in (("whole", []), ("without", ["--no-baseline"])):
        done = launch(root, "search", "--out", root / name, *flags(root, *more))
        assert done.returncode == 0, done.stderr
        (root / f"{name}.txt").write_text(done.stdout)
    return root


def final(run):
    return json.loads((run / "summary.json").read_text())["final"]


def test_the_gain_is_in_the_summary_and_shown_again(workplace):
    found = final(workplace / "whole")
    smaller, larger = found["baseline"]
    for one in (smaller, larger):
        assert one["steps"] == one["planned"] == 2 + found["steps"]
        assert one["reason"] is None
    assert smaller["config"]["hidden_dim"] < larger["config"]["hidden_dim"]
    best = found["baseline"][found["gain"]["over"]]
    bits = lambda one, split: one["splits"][split]["bits_per_byte"]
    assert bits(best, "validation") == min(
        bits(one, "validation") for one in (smaller, larger)
    )
    for split, gain in found["gain"]["splits"].items():
        winner = found["splits"][split]["winner"]["bits_per_byte"]
        assert gain["bits_per_byte"] == pytest.approx(bits(best, split) - winner)
        assert gain["standard_error"] > 0
        assert gain["windows"] == found["splits"][split]["windows"]
    again = launch(workplace, "search", "--resume", workplace / "whole")
    assert again.returncode == 0, again.stderr
    first = (workplace / "whole.txt").read_text()
    for text in (first, again.stdout):
        assert "of the winner over the obvious model" in text
        assert f"obvious model L{larger['config']['num_layers']}" in text
    warns = [line for line in first.splitlines() if "loses to" in line]
    assert warns == [line for line in again.stdout.splitlines() if "loses to" in line]
    scores = found["splits"]["test"]
    loses = scores["bigram"]["bits_per_byte"] <= scores["winner"]["bits_per_byte"]
    assert any("token bigram" in line for line in warns) == loses


def test_a_run_leaves_its_page(workplace):
    for name in ("whole", "without"):
        page = (workplace / name / "report.html").read_text()
        assert ("obvious model L" in page) == (name == "whole")
        shown = json.loads((workplace / name / "completions.json").read_text())
        cards = re.findall(r'class="completion( right)?"', page)
        assert len(shown["completions"]) == len(cards) > 0
        assert "finished" in page
        said = (workplace / f"{name}.txt").read_text().splitlines()[-2]
        assert said.endswith(f"{name}/report.html")


def test_without_it_the_rest_is_the_same(workplace):
    whole, without = (workplace / name for name in ("whole", "without"))
    assert_same(
        whole, without, ("results.jsonl", "best.json", "model/model.safetensors")
    )
    # Trainings are written down as they end, side by side.
    lines = [
        sorted(map(str, read_lines(run / "trainings.jsonl")))
        for run in (whole, without)
    ]
    assert lines[0] == lines[1]
    found = final(without)
    assert (found.pop("baseline"), found.pop("gain")) == ([], None)
    other = final(whole)
    assert found == {name: other[name] for name in found}
    assert "obvious" not in (workplace / "without.txt").read_text()


@pytest.mark.parametrize("times", [1, 5, 10])
def test_killed_while_they_train_and_resumed(workplace, tmp_path, times):
    run = tmp_path / "run"
    start = ["search", "--out", run, *flags(workplace)]
    killed = launch(workplace, *start, trap=("finishing", times))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = launch(workplace, "search", "--resume", run)
    assert done.returncode == 0, done.stderr
    names = ("results.jsonl", "summary.json", "model/model.safetensors")
    assert_same(workplace / "whole", run, names)
