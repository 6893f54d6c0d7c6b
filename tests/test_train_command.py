"""`train`: from a model's weights or anew, saved, stopped and gone on with."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tomli_w
from corpus import write_corpus
from tasks import TINY, noise_task

from arch import build_model
from arch.initial import draw_parameters
from jaxnas.commands.of_model import settings_of
from jaxnas.config import RunConfig
from jaxnas.data import prepare
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.pipeline import winner
from jaxnas.pipeline.train import train
from jaxnas.pipeline.train_plan import TrainPlan
from jaxnas.pipeline.train_words import TrainWords
from jaxnas.report.tables import plain_console
from jaxnas.run import main
from jaxnas.storage.run_folder import new_run
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.loop import Schedule, batch_starts, training_functions
from jaxnas.training.settings import TrainSettings

QUICK = {"xla_backend_optimization_level": "0"}
SHARED = """
import sys
import jax, numpy as np
sys.path.insert(0, "tests")
from tasks import TINY, noise_task
from jaxnas.training.devices import local_devices
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import continue_training, starting_state
from jaxnas.training.loop import batch_starts
from jaxnas.training.lengths import PhaseLength
import dataclasses

task = noise_task(TrainSettings(window=12, batch=4, learning_rate=1e-2))
if jax.local_device_count() > 1:
    task = dataclasses.replace(task, devices=local_devices(4))
phase = PhaseLength(samples=40, epochs=1)
starts = batch_starts(0, len(task.dataset.train), task.settings, phase)
state = starting_state(TINY, task)
for state, losses in continue_training(TINY, task, state, starts, "dropout"):
    placed = jax.tree.leaves(state.params)[0].sharding
np.savez(sys.argv[1], losses=losses, devices=len(placed.device_set),
         **{str(n): leaf for n, leaf in enumerate(jax.tree.leaves(state.params))})
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with code, and a saved model that was trained on none of it."""
    folder = tmp_path_factory.mktemp("train")
    code = write_corpus(folder / "code")
    dataset = prepare(f"folder:{code}", 300)
    config = dataclasses.replace(TINY, vocab_size=300, max_seq_length=16)
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(folder / "model", config, params, dataset.tokenizer)
    return folder


def flags(place, out, *more, model=None):
    return [
        "train",
        str(model or place / "model"),
        "--data",
        f"folder:{place / 'code'}",
        "--out",
        str(out),
        *_words("--tokens 6400 --window 16 --batch 4 --evaluate-every 40"),
        *_words("--eval-windows 16 --final-windows 16 --learning-rate 0.01"),
        *more,
    ]


def _words(text):
    return text.split()


def test_what_calibration_rounded_is_scored_as_it_is(place, tmp_path):
    """To nearest it would be rounded to other weights, at a loss."""
    small, out = tmp_path / "small", tmp_path / "out"
    words = _words("--window 16 --to q4_0 --rounding gptq --final-windows 16")
    corpus = ("--data", f"folder:{place / 'code'}", "--out", str(small))
    assert main(["compress", str(place / "model"), *corpus, *words]) == 0
    known = json.loads((small / "summary.json").read_text())["steps"][-1]
    # What such a rate leaves is worse: the model stays as it was.
    rate = _words("--learning-rate 1 --tokens 640 --evaluate-every 5")
    assert main(flags(place, out, *rate, model=small / "model")) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best_step"] == 0
    for split, bits in known["bits_per_byte"].items():
        before, after = summary["before"][split], summary["splits"][split]["winner"]
        assert before["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
        assert after["bits_per_byte"] == pytest.approx(bits, rel=1e-6)


def curve(folder):
    return list(map(json.loads, (folder / "curve.jsonl").read_text().splitlines()))


@pytest.fixture(scope="module")
def whole(place):
    """A training that nothing disturbed: 100 steps."""
    out = place / "whole"
    assert main(flags(place, out)) == 0
    return out


def test_a_training_belongs_together_too(whole, capsys):
    assert main(["verify", str(whole)]) == 0
    assert "manifest.json   can be read" in capsys.readouterr().out


def test_a_model_becomes_better_and_is_saved_with_its_tokenizer(place, whole):
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["steps"], summary["tokens"]) == (100, 6400)
    for split in ("validation", "test"):
        before = summary["before"][split]["bits_per_byte"]
        assert summary["splits"][split]["winner"]["bits_per_byte"] < 0.9 * before
    model, was = load_model(whole / "model"), load_model(place / "model")
    assert model.config == was.config
    assert model.tokenizer.to_str() == was.tokenizer.to_str()
    lines = curve(whole)
    assert [line["step"] for line in lines] == [0, 40, 80, 100]
    assert lines[0]["loss"] is None
    best = min(lines, key=lambda line: line["bits_per_byte"])
    assert summary["best_step"] == best["step"] > 0


def test_killed_and_resumed_it_gives_the_same_bytes(
    place, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(winner, "SAVE_EVERY", -1.0)
    out, evaluated = tmp_path / "cut", TrainWords.evaluated

    def stop(words, line):
        evaluated(words, line)
        if line["step"] == 80:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainWords, "evaluated", stop)
        assert main(flags(place, out)) == 130
    assert not (out / "model").exists()
    assert main(["train", "--resume", str(out)]) == 0
    for name in ("curve.jsonl", "model/model.safetensors", "summary.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_what_makes_a_model_worse_is_not_kept(place, whole, tmp_path, capsys):
    out = tmp_path / "worse"
    given = flags(place, out, "--learning-rate", "0.4", "--tokens", "2560")
    given[1] = str(whole / "model")
    assert main(given) == 0
    assert "has not made the model better" in capsys.readouterr().out
    before, after = (load_model(one / "model").params for one in (whole, out))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_fresh_weights_and_patience(place, whole, tmp_path, monkeypatch):
    """Learning rates of nothing make no evaluation better than the first."""
    out = tmp_path / "fresh"
    more = ["--fresh", "--patience", "2", "--learning-rate", "1e-12"]
    assert main(flags(place, out, *more, "--evaluate-every", "20")) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["steps"], summary["best_step"]) == (60, 20)
    assert [line["step"] for line in curve(out)] == [20, 40, 60]


@pytest.mark.parametrize(
    ("limit", "parts"), [(64, 1), (12, 1), (8, 2), (7, 2), (5, 3), (1, 12), (11, 2)]
)
def test_windows_are_parted_into_the_same_tokens(limit, parts):
    windows = np.arange(26).reshape(2, 13)
    found = winner.parted(windows, limit)
    assert found.shape == (2 * parts, 12 // parts + 1)
    np.testing.assert_array_equal(found[:, 1:].reshape(2, 12), windows[:, 1:])
    np.testing.assert_array_equal(found[:, :-1].reshape(2, 12), windows[:, :-1])


def test_windows_of_any_length_keep_their_context():
    found = winner.parted(np.arange(2 * 258).reshape(2, 258), 64)
    assert found.shape == (10, 52)
    assert found[1, 0] == found[0, -1] == 51


def test_longer_windows_leave_the_old_positions_as_they_are(place, tmp_path):
    """Those of a table end: what it was before is said of windows that it can read."""
    learned = {"position_encoding": "absolute", "learned_positions": True}
    config = dataclasses.replace(
        TINY, vocab_size=300, max_seq_length=16, arch_type="transformer", **learned
    )
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(tmp_path / "old", config, params, load_model(place / "model").tokenizer)
    out, more = tmp_path / "out", ["--fresh", "--window", "32", "--tokens", "640"]
    assert main(flags(place, out, *more, model=tmp_path / "old")) == 0
    assert load_model(out / "model").config.max_seq_length == 32
    summary = json.loads((out / "summary.json").read_text())
    assert summary["before"].keys() == {"validation", "test"}


def test_a_model_from_untrained_weights_is_stored_as_its_plan_says(place, tmp_path):
    plan = TrainPlan(
        model=str(place / "model"),
        data=f"folder:{place / 'code'}",
        fresh=True,
        fim=0.0,
        tokens=640,
        budget=None,
        window=16,
        batch=4,
        accumulate=1,
        learning_rate=0.01,
        evaluate_every=40,
        eval_windows=16,
        final_windows=16,
        patience=None,
        seed=0,
        quantization="int8",
    )
    assert load_model(plan.model).config.quantization == "fp16"
    with new_run(tmp_path / "out", "train", "") as folder:
        train(folder, plan, plain_console(), time.monotonic())
    assert load_model(tmp_path / "out" / "model").config.quantization == "int8"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--batch", "0"], "--batch 0 must be at least 1"),
        (["--accumulate", "3"], "--batch 4 does not split into 3 parts"),
        (["--window", "1048576"], "positions"),
        (["--data", "folder:none"], "does not exist"),
        (["--learning-rate", "nan"], "--learning-rate nan must be finite"),
        (["--patience", "0"], "--patience 0 must be at least 1"),
    ],
)
def test_what_cannot_be_used_is_one_line(place, tmp_path, capsys, more, said):
    out = tmp_path / "bad"
    assert main(flags(place, out, *more)) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (out / "config.toml").exists()


def test_other_data_is_not_gone_on_with(place, whole, tmp_path, capsys):
    text = (whole / "config.toml").read_text()
    other = write_corpus(tmp_path / "other", files=90)
    for name in ("manifest.json", "curve.jsonl"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    text = text.replace(str(place / "code"), str(other))
    (tmp_path / "config.toml").write_text(text)
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "begun with other data" in capsys.readouterr().err


def close(one, two):
    """To what ten of Adam's steps make of last digits."""
    np.testing.assert_allclose(one, two, atol=3e-4)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    found = []
    for parts in (1, 2, 4):
        settings = TrainSettings(
            window=12, batch=4, learning_rate=1e-2, accumulate=parts
        )
        task = noise_task(settings)
        init, run = training_functions(build_model(TINY), settings)
        phase = PhaseLength(samples=20, epochs=1)
        starts = batch_starts(0, len(task.dataset.train), settings, phase)
        state = init(draw_parameters(build_model(TINY), jax.random.key(1)))
        step = jax.jit(functools.partial(run), compiler_options=QUICK)
        schedule = Schedule.over(5, settings)
        done = step(state, task.train_tokens, starts, schedule, task.key("dropout"), 5)
        found.append((done[0].params, done[1]))
    for params, losses in found[1:]:
        np.testing.assert_allclose(losses[:5], found[0][1][:5], rtol=2e-6)
        jax.tree.map(close, params, found[0][0])


def test_from_untrained_weights_windows_are_longer_than_a_search_s(tmp_path):
    run = tmp_path / "config.toml"
    run.write_text(RunConfig(space="nano").resolve("cpu").to_toml())
    names = ("window", "eval_windows", "final_windows")
    for file in (run, None):
        found = settings_of(file, further=False, longer=True)
        assert [found[name] for name in names] == [256, 64, 128]
        found = settings_of(file)
        assert [found[name] for name in names] == [64, 256, 512]
    run.write_text(tomli_w.dumps(found | {"fresh": True}))
    assert settings_of(run, further=False, longer=True)["window"] == 64  # a training's


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    """Of three, which do not split a batch of 4, two share it."""
    for number in (1, 3):
        flag = f"--xla_force_host_platform_device_count={number}"
        done = subprocess.run(
            [sys.executable, "-c", SHARED, str(tmp_path / f"{number}.npz")],
            env={**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "3.npz") as two:
        assert (one["devices"], two["devices"]) == (1, 2)
        np.testing.assert_allclose(one["losses"], two["losses"], rtol=1e-5)
        for name in set(one.files) - {"losses", "devices"}:
            close(one[name], two[name])
