"""`compare RUN RUN ...`: groups of seeds, and what chance does."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from written_run import drawn_results, written_run, written_summary

from arch.cost.hardware import HARDWARE
from jaxnas.commands import compare
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.results.comparison import groups_of, permutation
from jaxnas.results.record import read_record


def finished(path, seed, bits, strategy="predictor", found=(), **settings):
    """The folder of a finished search of which only this much is known.

    Args:
      path: of the folder.
      seed: of the search.
      bits: per byte of its winner, on the test split.
      strategy: of the search.
      found: entries of the manifest, beside those of the settings.
      **settings: others of the search.
    """
    folder = written_run(path, drawn_results(12, seed))
    config = RunConfig(space="nano", seed=seed, strategy=strategy, **settings)
    folder.config.write_text(config.to_toml())
    decides = {"backend": "cpu", "corpus_hash": "0123456789", **dict(found)}
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


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"generations": 9}, "generations=9"),
        ({"max_evals": 30}, "max_evals=30"),
        ({"patience": 2}, "patience=2"),
        ({"target": "accuracy=0.4"}, "target=accuracy=0.4"),
        ({"baseline": False}, "baseline=False"),
    ],
)
def test_runs_of_another_length_are_another_group(tmp_path, settings, name):
    """A resume may change these settings; they decide what is found all the same."""
    finished(tmp_path / "a", 0, 1.5)
    finished(tmp_path / "b", 1, 1.4, **settings)
    first, second = groups_of([read_record(tmp_path / one) for one in "ab"])
    assert second.name == name
    other = {"baseline": "True", "generations": "2"}
    setting = next(iter(settings))
    assert first.name == f"{setting}={other.get(setting, 'none')}"


def test_runs_on_other_devices_data_or_spaces_are_other_groups(tmp_path):
    profile = dataclasses.asdict(HARDWARE["a100"]) | {"calibrated": None}
    finished(tmp_path / "a", 0, 1.5)
    finished(tmp_path / "b", 1, 1.5, found={"hardware_profile": profile})
    finished(tmp_path / "c", 2, 1.5, found={"corpus_hash": "9876543210"})
    finished(tmp_path / "d", 3, 1.5, found={"space_hash": "0011223344"})
    groups = groups_of([read_record(tmp_path / one) for one in "abcd"])
    assert [group.name for group in groups] == [
        "corpus_hash=01234567 space_hash=none device=none",
        "corpus_hash=01234567 space_hash=none device=a100",
        "corpus_hash=98765432 space_hash=none device=none",
        "corpus_hash=01234567 space_hash=00112233 device=none",
    ]


def test_what_is_kept_and_shown_decides_no_group(tmp_path):
    finished(tmp_path / "a", 0, 1.5)
    finished(tmp_path / "b", 1, 1.4, top_k=3, checkpoint_every=2, keep_checkpoints=1)
    [group] = groups_of([read_record(tmp_path / one) for one in "ab"])
    assert group.name == "the same settings"


def test_a_run_named_twice_is_refused(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for twice in (runs[0], "predictor0", "random1/../predictor0"):
        with pytest.raises(UsageError, match="is named twice"):
            compare.main([runs[0], runs[1], twice])


def test_a_seed_counts_once(runs, tmp_path, capsys):
    """Two runs of a seed are no two draws: they cannot make chance smaller."""
    copies = [shutil.copytree(run, tmp_path / f"copy{n}") for n, run in enumerate(runs)]
    compare.main(runs)
    alone = capsys.readouterr().out
    compare.main([*runs, *map(str, copies)])
    said = capsys.readouterr().out
    assert said.count("6 finished runs of 3 seeds: the first counts") == 2
    [line] = [line for line in alone.splitlines() if line.startswith("1 against 2")]
    assert line in said.splitlines()


@pytest.mark.parametrize(
    "flags", [["--hardware", "nosuch"], ["--prompt", "9"], ["--precision", "int4"]]
)
def test_flags_of_shapes_are_refused_for_runs(runs, flags):
    with pytest.raises(UsageError, match=rf"{flags[0]} is for shapes"):
        compare.main([*runs[:2], *flags])


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


def test_chance_is_never_below_what_so_few_runs_can_have():
    """However close the values are: bits per byte differ in the fifth digit."""
    near = permutation([1.68710, 1.68711], [1.68712, 1.68713])
    assert near.p == near.least == pytest.approx(1 / 3)
    random = np.random.default_rng(0)
    for _ in range(2000):
        sizes = random.integers(1, 5, 2)
        scale = 10.0 ** random.integers(-9, 0)
        groups = [1.7 + scale * random.normal(size=size) for size in sizes]
        found = permutation(*groups)
        assert found.p >= found.least - 1e-12
