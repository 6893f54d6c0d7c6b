"""Calibration: what it measures, and what it leaves as it was."""

import json
import os
import subprocess
import sys

import jax
import pytest

from jaxnas.population.calibration import Calibration, calibration_of
from jaxnas.population.cost_model import fitted_rates

FACTORS = {"launches": 3.0, "products": 5.0, "rest": 2.0, "compile": 7.0}
SCRIPT = """
import json, os, jax
jax.config.update("jax_compilation_cache_dir", os.environ["XLA_FOLDER"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
from jaxnas.population.calibration import calibrate
found = calibrate(jax.devices()[0], 2)
before = len(os.listdir(os.environ["XLA_FOLDER"]))
jax.jit(lambda x: x + 1)(1.0)
after = len(os.listdir(os.environ["XLA_FOLDER"]))
print(json.dumps([found.to_dict(), before, after]))
"""


def test_scaled_rates_are_so_many_times_the_seconds():
    rates = fitted_rates()
    scaled = rates.scaled(**FACTORS, handling=1e-9, workers=2)
    by_name = dict(zip(("step", "layers", "tokens"), (3.0,) * 3, strict=True))
    for family, before in rates.step.items():
        for name, old, new in zip(
            ("step", "layers", "tokens", "flops", "values", "parameters"),
            before,
            scaled.step[family],
            strict=True,
        ):
            factor = by_name.get(name, 5.0 if name == "flops" else 2.0)
            assert new == pytest.approx(old * factor)
        assert scaled.compile[family] == pytest.approx(
            [7.0 * rate for rate in rates.compile[family]]
        )
    assert scaled.memory == rates.memory
    assert (scaled.handling, scaled.workers) == (1e-9, 2)


def test_a_kept_calibration_is_read_and_not_measured():
    device = jax.local_devices()[0]
    said = []
    found = calibration_of(device, 1, said.append)
    assert said == []
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.slow
def test_measuring_leaves_the_compilation_cache_as_it_was(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "XLA_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found, before, after = json.loads(done.stdout)
    assert after > before
    for rates in found["rates"]["compile"].values():
        assert min(rates) >= 0
        assert sum(rates) > 0
    assert found["a_step"] > 0
