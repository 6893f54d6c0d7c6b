"""The experiment on other people's trained models."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "experiments/capability"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("_lts", FOLDER / "capability.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["_lts"] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["_lts"]


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        # As the file counts them, of models that it has.
        (
            ("pareto_GPT2", "960", "7", "3584-3648-3328-3392-3200-1984-3200"),
            68_774_656,
        ),
        (("random_TransXL", "64", "6", "1765-805-1822-1278-710-1728"), 1_171_500),
        (("homogeneous_TransXL", "128", "6", "1265"), 2_447_526),
    ],
)
def test_parameters_from_the_fields(experiment, fields, parameters):
    names = ("exp", "d_model", "n_layer", "d_inner")
    assert experiment.parameters_of(dict(zip(names, fields, strict=True))) == parameters


def test_absent_data_is_one_line_and_exit_code_2(experiment, tmp_path, capsys):
    assert experiment.main(["--data", str(tmp_path / "absent.csv")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "absent.csv" in printed.err


@pytest.fixture(scope="module")
def sets(experiment):
    if not experiment.DATA.is_file():
        pytest.skip(f"needs {experiment.DATA}")
    return experiment.read_sets(experiment.DATA)


def test_predicted_loss_ranks_the_trained_models(experiment, sets):
    assert sum(len(models.loss) for models in sets.values()) == 1116
    for name, models in sets.items():
        assert experiment.rank_correlation(models) >= 0.945, name


def test_a_fitted_law_predicts_models_that_it_did_not_see(experiment, sets):
    for name, models in sets.items():
        found = experiment.measure(models, halves=1, seed=3)
        assert found["error"] < 0.35 * found["error_constant"], name
        if found["spearman_total"] < 0.9:
            assert found["error"] < 0.5 * found["error_total"], name


def test_the_record_is_what_the_experiment_finds(experiment, sets):
    recorded = json.loads((FOLDER / "result.json").read_text())
    assert set(recorded) == set(sets)
    for name, models in sets.items():
        assert recorded[name]["models"] == len(models.loss)
        found = experiment.rank_correlation(models)
        assert recorded[name]["spearman"] == pytest.approx(found, abs=1e-12)


def test_the_readme_shows_the_record(experiment, capsys):
    recorded = json.loads((FOLDER / "result.json").read_text())
    for table in experiment.tables(recorded):
        experiment.plain_console().print(table)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "\n".join(lines) in (FOLDER / "README.md").read_text()
