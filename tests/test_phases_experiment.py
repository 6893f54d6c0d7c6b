"""The experiment on what phases reach, of runs that are made up."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
from results import made_result

from arch.baselines import BASELINES
from jaxnas.config import RunConfig

FOLDER = Path(__file__).parents[1] / "experiments/phases"
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0)
CONFIG = next(iter(BASELINES.values()))


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("_compare", FOLDER / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(number, accuracy, **more):
    """One of five trainings; a smaller model each time."""
    result = made_result(
        number,
        config=dataclasses.replace(CONFIG, num_layers=1 + number),
        accuracy=accuracy,
        objectives=[1 - accuracy, SIZES[number], 1.0],
    )
    return result.to_row() | more


def write_run(folder, settings, results, later=()):
    folder.mkdir()
    config = RunConfig(space="medium", preset="small", **settings).resolve("cpu")
    (folder / "config.toml").write_text(config.to_toml())
    for name, lines in (("results", results), ("rungs", later)):
        text = "".join(json.dumps(entry) + "\n" for entry in lines)
        (folder / f"{name}.jsonl").write_text(text)
    trust = {"phases": [{"correlation": 0.5}]}
    (folder / "summary.json").write_text(json.dumps({"trust": trust}))


def test_the_best_that_came_by_rank_is_placed_among_the_full_search(
    experiment, tmp_path
):
    shared = {"window": 16, "batch": 4, "decay_share": 0.5}
    accuracies = (0.1, 0.2, 0.3, 0.4, 0.5)
    full = [line(at, accuracy) for at, accuracy in enumerate(accuracies)]
    write_run(tmp_path / "full", {"phases": "80", **shared}, full)
    deep = dataclasses.replace(CONFIG, num_layers=12)
    skipped = made_result(5, config=deep, status="skipped").to_row()
    first = [*(line(at, 0.05) for at in range(4)), line(3, 0.05), skipped]
    later = [
        line(2, 0.25, phase="80", by="rank"),
        line(1, 0.15, phase="80", by="rank"),
        line(4, 0.50, phase="80", by="luck"),
    ]
    write_run(tmp_path / "phases", {"phases": "40,80", **shared}, first, later)
    found = experiment.figures(
        tmp_path / "phases",
        tmp_path / "full",
        experiment.argparse.Namespace(phases="40,80"),
    )
    # Steps are of 4 windows of 16 tokens. Of 10 steps of the first phase 5 are the
    # decay, done again by whoever goes on, to 20: four trainings and three.
    assert found["tokens"] == {"phases": (4 * 10 + 3 * 15) * 64, "full": 5 * 20 * 64}
    assert found["tokens_share"] == pytest.approx(85 / 100)
    assert (found["full_candidates"], found["reached"]) == (5, 3)
    accuracy = found["accuracy"]
    assert (accuracy["best"], accuracy["full_best"]) == (0.25, 0.5)
    assert accuracy["beaten_by"] == 3 / 5
    # Below a reference of 1.1 times the worst: 0.99, 17.6 and 1.1.
    volumes = [
        (0.99 - (1 - value)) * (17.6 - size) * 0.1
        for value, size in zip(accuracies, SIZES, strict=True)
    ]
    best = (0.99 - 0.75) * (17.6 - 4.0) * 0.1
    assert found["hypervolume"]["best"] == pytest.approx(best)
    assert sum(volume > best for volume in volumes) == 2
    assert found["hypervolume"]["beaten_by"] == 2 / 5


def test_the_readme_shows_the_record(experiment, capsys):
    record = json.loads((FOLDER / "result.json").read_text())
    experiment.show(record["rows"])
    readme = (FOLDER / "README.md").read_text()
    for printed in capsys.readouterr().out.splitlines()[1:]:
        assert printed.rstrip() in readme
