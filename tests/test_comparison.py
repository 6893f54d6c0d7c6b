"""`compare RUN RUN ...`: groups of seeds, and what chance does."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from written_run import drawn_results, written_run, written_summary

from jaxnas.commands import compare
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.results.comparison import groups_of, permutation
from jaxnas.results.record import read_record


def finished(path, seed, bits, strategy="predictor", results=None):
    """The folder of a finished search of which only this much is known."""
    folder = written_run(path, drawn_results(12, seed) if results is None else results)
    config = RunConfig(space="nano", seed=seed, strategy=strategy)
    folder.config.write_text(config.to_toml())
    decides = dataclasses.asdict(config) | {"corpus_hash": "0123456789"}
    folder.manifest.write_text(json.dumps({"decides": decides}))
    folder.summary.write_text(json.dumps(written_summary(bits)))
    return folder


@pytest.fixture
def runs(tmp_path):
    made = [
        finished(tmp_path / f"{strategy}{seed}", seed, bits + seed / 100, strategy)
        for strategy, bits in (("predictor", 1.5), ("random", 1.7))
        for seed in range(3)
    ]
    return [str(folder.path) for folder in made]


def test_seeds_of_the_same_settings_are_one_group(runs):
    groups = groups_of([read_record(Path(run)) for run in runs])
    assert [len(group.runs) for group in groups] == [3, 3]
    assert [group.name for group in groups] == ["strategy=predictor", "strategy=random"]


def test_runs_are_set_side_by_side(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    file = tmp_path / "bands.svg"
    compare.main([*runs, "--svg", str(file)])
    said = capsys.readouterr().out
    assert "group 1     strategy=predictor: 3 runs, test bits/byte 1.510" in said
    assert "(1.500 to 1.520)" in said
    # Of the 20 ways to share six runs out, two are as far apart as this.
    assert "1 against 2  -0.2000 bits/byte" in said
    assert "p = 0.100 (so few runs cannot have less than 0.100)" in said
    drawn = file.read_text()
    assert drawn.count("group ") == 2
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')


def test_one_seed_of_each_tells_nothing(runs, capsys):
    compare.main([runs[0], runs[3]])
    assert "needs two finished seeds of each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "said"),
    [("llama-3-8b", "llama-3-8b holds no run"), (None, "compare needs two or more")],
)
def test_what_does_not_compare_is_one_line(runs, extra, said):
    with pytest.raises(UsageError, match=said):
        compare.main([runs[0]] if extra is None else [runs[0], extra])


def test_chance_is_told_as_it_is():
    random = np.random.default_rng(0)
    found = [permutation(*random.normal(size=(2, 4))).p for _ in range(200)]
    # Uniform where there is no difference: a tenth is below 0.1.
    assert 0.04 < np.mean(np.asarray(found) <= 0.1) < 0.18
    sure = permutation([1.0, 1.1, 1.2, 1.05], [2.0, 2.1, 2.2, 2.05])
    assert sure.p == sure.least == pytest.approx(2 / 70)
    assert sure.difference == pytest.approx(-1)
    many = permutation(np.arange(12.0), np.arange(12.0) + 20)
    assert many.p < 0.001


def test_equal_groups_are_no_different():
    assert permutation([1.0, 2.0], [1.0, 2.0]).p == 1
