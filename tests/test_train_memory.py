"""What a training keeps in memory, beside what XLA says of compiled ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arch import ArchitectureConfig
from arch.baselines import BASELINES
from arch.cost import parameters
from arch.families import FAMILIES
from jaxnas.population.train_memory import training_memory, written

ROOT = Path(__file__).parents[1]
ROWS = (ROOT / "experiments" / "memory" / "rows.jsonl").read_text().splitlines()


def test_predictions_are_within_a_seventh_of_what_was_compiled():
    rows = [json.loads(line) for line in ROWS]
    assert {row["config"]["arch_type"] for row in rows} == set(FAMILIES)
    assert len(rows) >= 20
    for row in rows:
        config = ArchitectureConfig(**row["config"])
        found = training_memory(config, row["batch"], row["window"])
        assert found.total == pytest.approx(row["bytes"], rel=0.15)


@pytest.mark.parametrize("name", BASELINES)
def test_parts_are_counted(name):
    config = BASELINES[name]
    found = training_memory(config, 4, 32)
    assert found.parameters == found.gradients == 4 * parameters(config)
    assert found.optimizer == 2 * found.parameters
    assert found.total == sum(found)
    twice = training_memory(config, 8, 32)
    assert twice.activations == pytest.approx(2 * found.activations, rel=1e-6)


def test_every_value_that_is_written_is_of_one_kind():
    config = BASELINES["gpt2-like"]
    few, many = written(config, 1, 32), written(config, 1, 64)
    assert many.scores == 4 * few.scores
    assert many.logits == 2 * few.logits == 64 * config.vocab_size


# No fit has seen it; compiled as a user would, without the tests' flags.
SCRIPT = """
import sys
sys.path.insert(0, "experiments/memory")
from training_memory import measured
from arch import ArchitectureConfig
from jaxnas.population.train_memory import training_memory
row = measured({family!r}, 3, 160, 3000, 6, 96, 3.0, "swiglu", False)
found = training_memory(ArchitectureConfig(**row["config"]), 6, 96)
print(found.total / row["bytes"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_no_fit_has_seen(family):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(family=family)],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1, abs=0.15)
