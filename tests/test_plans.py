"""Plans are recorded before they run, and run as they were recorded."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from corpus import write_corpus
from tasks import TINY, evaluator_with, noise_task

from arch import cost
from jaxnas.errors import UsageError
from jaxnas.evaluation.fitness import FitnessSettings
from jaxnas.evaluation.training_log import TrainingLog
from jaxnas.population.cost_model import fitted_rates
from jaxnas.population.devices import Machine
from jaxnas.population.lanes import Running
from jaxnas.population.observer import Observer
from jaxnas.population.plan_log import Plans
from jaxnas.population.trainer import NOTHING_AHEAD
from jaxnas.storage.jsonl import CHAIN, Lines
from jaxnas.training.keys import training_key
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.phase import FIRST
from jaxnas.training.rungs import rungs_of
from jaxnas.training.settings import TrainSettings

CONFIGS = [
    TINY,
    dataclasses.replace(TINY, num_layers=2, normalization="layernorm"),
    dataclasses.replace(TINY, hidden_dim=16, position_encoding="alibi"),
]
SETTINGS = TrainSettings(window=12, batch=4, learning_rate=1e-2, steps_per_call=3)
CALLS_A_MEMBER = 2


def task():
    return noise_task(SETTINGS)


def machine(compile_factor):
    """A device that compiles so many times as slowly as the one of the rates."""
    compile = {
        name: [rate * compile_factor for rate in rates]
        for name, rates in fitted_rates().compile.items()
    }
    rates = dataclasses.replace(fitted_rates(), compile=compile, workers=1)
    made_up = Machine(devices=tuple(jax.local_devices()[:1]))
    vars(made_up)["rates"] = rates
    return made_up


class Opened:
    """An evaluator with its files, and what it says."""

    def __init__(self, folder: Path, compile_factor: float = 1e3):
        self.plans = Lines(folder / "plans.jsonl")
        self.trainings = Lines(folder / "trainings.jsonl")
        self.trained, self.planned = {}, []
        self.evaluator = evaluator_with(
            task=task(),
            rungs=rungs_of(
                {"fast": PhaseLength(samples=20, epochs=1)}, SETTINGS
            ),  # 5 steps
            hardware=cost.HARDWARE["cpu-core"],
            fitness=FitnessSettings(size_target=0.01, size_limit=1.0),
            max_size=500.0,
            eval_windows=9,
            trainings=TrainingLog(self.trainings),
            plans=Plans(self.plans),
            machine=machine(compile_factor),
            observer=Observer(
                trained=lambda config, params, *_: self.trained.update(
                    {config: params}
                ),
                planned=self.planned.append,
            ),
        )

    def close(self):
        self.plans.close()
        self.trainings.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A generation that ran to its end, in one folder."""
    folder = tmp_path_factory.mktemp("whole")
    opened, lines_at_calls, advance = Opened(folder), [], Running.advance

    def watched(self, *arguments):
        lines_at_calls.append((folder / "plans.jsonl").read_text().count("\n"))
        return advance(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Running, "advance", watched)
        evaluations = list(opened.evaluator.evaluate(CONFIGS, generation=4).values())
    opened.close()
    return folder, opened, evaluations, lines_at_calls


def test_a_plan_is_on_disk_before_its_training_starts(whole):
    folder, opened, evaluations, lines_at_calls = whole
    assert [found.status for found in evaluations] == ["ok"] * 3
    assert lines_at_calls == [1] * CALLS_A_MEMBER * len(CONFIGS)
    [line] = (folder / "plans.jsonl").read_text().splitlines()
    read = json.loads(line)
    assert read["generation"] == 4
    assert read["keys"] == [training_key(config) for config in CONFIGS]
    [plan] = opened.planned
    assert read["plan"] == json.loads(json.dumps(plan.to_dict()))
    # Compiling is dear on this device: they share a program.
    assert [len(bucket.members) for bucket in plan.buckets] == [3]


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_recorded_plan_is_executed_not_made_anew(whole, tmp_path, known):
    folder, first, evaluations, _ = whole
    (tmp_path / "plans.jsonl").write_bytes((folder / "plans.jsonl").read_bytes())
    lines = (folder / "trainings.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "trainings.jsonl").write_text("".join(lines[:known]))
    # This device would train more of them in their own programs.
    second = Opened(tmp_path, compile_factor=1e-6)
    assert (
        len(second.evaluator.trainer._plan(CONFIGS, NOTHING_AHEAD, FIRST).buckets) > 1
    )
    again = list(second.evaluator.evaluate(CONFIGS).values())
    second.close()
    assert again == evaluations
    for one, other in zip(again, evaluations, strict=True):
        assert one.metrics.loss.hex() == other.metrics.loss.hex()
    assert second.planned == []
    assert len(second.plans) == 1
    assert len(second.trained) == len(CONFIGS) - known
    for config, params in second.trained.items():
        chex.assert_trees_all_equal(params, first.trained[config])


def test_weights_are_those_of_the_first_training(whole, tmp_path):
    folder, first, _, _ = whole
    for name in ("plans.jsonl", "trainings.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    second = Opened(tmp_path, compile_factor=1e-6)
    steps = []
    compressed = dataclasses.replace(CONFIGS[2], quantization="int4")
    params = second.evaluator.weights(compressed, lambda *told: steps.append(told[:2]))
    second.close()
    chex.assert_trees_all_equal(params, first.trained[CONFIGS[2]])
    assert steps == [(3, 5), (5, 5)]
    assert second.planned == []
    assert second.trained == {}


def test_the_latest_plan_that_holds_all_is_found(whole):
    _, opened, _, _ = whole
    [plan] = opened.planned
    plans = Plans()
    other = dataclasses.replace(plan, seconds=plan.seconds + 1)
    plans.add(["a", "b", "c"], plan)
    plans.add(["b", "c", "d"], other)
    assert plans.find(["a"]) == (["a", "b", "c"], plan)
    assert plans.find(["c", "b"]) == (["b", "c", "d"], other)
    assert plans.find(["a", "d"]) is None
    assert plans.programs() == plan.programs()


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: {},
        lambda line: line | {"keys": None},
        lambda line: line | {"plan": []},
        lambda line: line | {"plan": line["plan"] | {"buckets": [{}]}},
        lambda line: line | {"plan": line["plan"] | {"buckets": ["x"]}},
        lambda line: line | {"plan": line["plan"] | {"prepared": [{"shape": {}}]}},
    ],
)
def test_a_damaged_file_is_one_clear_line(whole, tmp_path, damage):
    folder = whole[0]
    line = json.loads((folder / "plans.jsonl").read_text())
    del line[CHAIN]
    path = tmp_path / "plans.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps(damage(line)) + "\n")
    lines = Lines(path)
    with pytest.raises(UsageError, match=r"plans.jsonl is damaged at line 2: ") as said:
        Plans(lines)
    lines.close()
    assert "\n" not in str(said.value)


SEARCH = {
    "population": 4,
    "generations": 2,
    "samples": 16,
    "window": 16,
    "batch": 4,
    "vocab-size": 300,
    "eval-windows": 8,
    "final-windows": 8,
    "final-steps": 2,
    "measure-top": 0,
}


@pytest.mark.slow
def test_a_search_finds_the_same_on_one_device_and_on_two(tmp_path):
    write_corpus(tmp_path / "code")

    def search(name, xla_flags):
        flags = [f"--data=folder:{tmp_path / 'code'}", f"--out={tmp_path / name}"]
        flags += ["--no-baseline"]
        flags += [f"--{flag}={value}" for flag, value in SEARCH.items()]
        done = subprocess.run(
            [sys.executable, "-m", "jaxnas.run", "search", *flags],
            env={**os.environ, "XLA_FLAGS": xla_flags},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr
        assert "measuring" not in done.stdout
        results = (tmp_path / name / "results.jsonl").read_bytes()
        plans = (tmp_path / name / "plans.jsonl").read_text().splitlines()
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        return results, plans, summary["search"]["top"]

    two_flag = "--xla_force_host_platform_device_count=2"
    one, two = search("one", ""), search("two", two_flag)
    # To the byte, plans included: predicted seconds are no clock's.
    assert search("one-again", "") == one
    assert search("two-again", two_flag) == two
    used = [
        {bucket["device"] for bucket in json.loads(plans[0])["plan"]["buckets"]}
        for _, plans, _ in (one, two)
    ]
    assert used[0] == {0}
    assert used[1] == {0, 1}
    rows = [
        [json.loads(line) for line in results.splitlines()]
        for results, _, _ in (one, two)
    ]
    assert [row["id"] for row in rows[0]] == [row["id"] for row in rows[1]]
    assert [row["genome"] for row in rows[0]] == [row["genome"] for row in rows[1]]
    fitness = [[row["fitness"] for row in of] for of in rows]
    np.testing.assert_allclose(fitness[0], fitness[1], atol=1e-4)
    assert one[2] == two[2]
