"""The experiment on other people's trained models."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from arch.scaling import predicted_loss
from jaxnas.report.tables import plain_console

FOLDER = Path(__file__).parents[1] / "experiments/capability"


def load(name):
    """A script of the experiment as a module."""
    spec = importlib.util.spec_from_file_location(f"_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def experiment():
    return load("capability")


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


def shown(tables, capsys):
    """What the console prints of tables, without spaces at the ends of lines."""
    for table in tables:
        plain_console().print(table)
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


def test_the_readme_shows_the_records(experiment, capsys):
    readme = (FOLDER / "README.md").read_text()
    trained = json.loads((FOLDER / "result.json").read_text())
    assert shown(experiment.tables(trained), capsys) in readme
    rises = json.loads((FOLDER / "compression.json").read_text())
    assert shown([load("compressing").table_of(rises)], capsys) in readme


def test_the_recorded_predictions_are_those_of_the_law():
    rows = json.loads((FOLDER / "compression.json").read_text())
    whole = {row["tokens"]: row for row in reversed(rows) if row["predicted"] == 0}
    configs = load("compressing").compressed(1024, 64)
    for row, config in zip(rows, configs * len(whole), strict=True):
        assert row["quantization"] == config.quantization
        assert row["pruning"] == config.pruning_ratio
        rise = predicted_loss(config, row["tokens"]) - predicted_loss(
            configs[0], row["tokens"]
        )
        assert row["predicted"] == pytest.approx(rise, abs=1e-12)
        assert row["measured"] == row["loss"] - whole[row["tokens"]]["loss"]
