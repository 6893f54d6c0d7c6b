"""`compress`: smaller, saved as ordinary models, with what each step cost."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from corpus import write_corpus
from tasks import TINY

import jaxnas.pipeline.compress as module
from arch import build_model
from arch.cost import size_bytes
from arch.initial import draw_parameters
from jaxnas.benchmarks.bits import bits
from jaxnas.data import prepare
from jaxnas.export.model_folder import load_codes, load_model, save_model
from jaxnas.run import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with code, and a saved model that was trained on none of it."""
    folder = tmp_path_factory.mktemp("compress")
    code = write_corpus(folder / "code")
    dataset = prepare(f"folder:{code}", 300)
    config = dataclasses.replace(
        TINY, num_layers=2, ffn_dim=128, vocab_size=300, max_seq_length=16
    )
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(folder / "model", config, params, dataset.tokenizer)
    return folder


def run(place, out, *more):
    return main(
        [
            "compress",
            *(str(place / "model"), "--data", f"folder:{place / 'code'}"),
            *("--out", str(out), "--window", "16", "--batch", "4"),
            *("--final-windows", "16", *more),
        ]
    )


def test_a_share_of_the_bytes_goes(place, tmp_path, capsys, told):
    flags = ("--prune", "0.3", "--to", "q4_0", "--recover-steps", "8")
    tracking = ("--tracker", "my_tracker:log")
    assert run(place, tmp_path / "out", *flags, *tracking) == 0
    before = load_model(place / "model").config
    found = load_model(tmp_path / "out" / "model")
    share = size_bytes(dataclasses.replace(found.config, quantization="fp16"))
    assert 0.4 < share / size_bytes(before) <= 0.7
    assert found.config.quantization == "int4"
    steps = json.loads((tmp_path / "out" / "summary.json").read_text())["steps"]
    kinds = [step["name"].split()[0] for step in steps]
    assert (kinds[0], kinds[-1]) == ("as", "rounded,")
    assert kinds.count("pruned") >= 1
    assert kinds.count("trained") == 3
    assert [(kind, step) for kind, step, _ in told] == [
        ("compression", number) for number in range(len(steps))
    ]
    validation = [figures["bits_per_byte_validation"] for _, _, figures in told]
    assert validation == [step["bits_per_byte"]["validation"] for step in steps]
    assert steps[0]["bytes"] == size_bytes(before)
    assert steps[-1]["bytes"] == size_bytes(found.config)
    assert "What each step cost" in capsys.readouterr().out
    # Scored as it is stored, by the table as by `evaluate`.
    scored = bits(found, f"folder:{place / 'code'}", 16)["bits_per_byte"]
    np.testing.assert_allclose(scored, steps[-1]["bits_per_byte"]["test"], rtol=1e-5)


def test_a_compression_that_was_stopped_goes_on_to_the_same_bytes(
    place, tmp_path, monkeypatch, capsys
):
    flags = ("--prune", "0.3", "--to", "q4_0", "--recover-steps", "8")
    assert run(place, tmp_path / "whole", *flags) == 0
    recovered, calls = module.trained_on, []

    def stopped(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return recovered(*given)

    monkeypatch.setattr(module, "trained_on", stopped)
    assert run(place, tmp_path / "out", *flags) == 130
    assert f"--resume {tmp_path / 'out'}" in capsys.readouterr().err
    resume = ["compress", "--resume", str(tmp_path / "out")]
    assert main(resume) == 0
    assert len(calls) == 4  # of three recoveries, one was done
    for name in ("model/model.safetensors", "model/config.json", "summary.json"):
        whole, found = ((tmp_path / one / name) for one in ("whole", "out"))
        assert whole.read_bytes() == found.read_bytes(), name
    assert not (tmp_path / "out" / "steps").exists()
    assert main(resume) == 2
    assert "is done: its model is" in capsys.readouterr().err
    assert main([*resume, "--prune", "0.2"]) == 2


def test_other_data_is_refused_when_it_goes_on(place, tmp_path, monkeypatch, capsys):
    def stopped(*given):
        raise KeyboardInterrupt

    out, code = tmp_path / "out", shutil.copytree(place / "code", tmp_path / "code")
    flags = ("--data", f"folder:{code}", "--prune", "0.3", "--recover-steps", "8")
    with monkeypatch.context() as patch:
        patch.setattr(module, "trained_on", stopped)
        assert run(place, out, *flags) == 130
    sorted(code.rglob("*.py"))[0].unlink()
    capsys.readouterr()
    assert main(["compress", "--resume", str(out)]) == 2
    assert "was begun with other data" in capsys.readouterr().err


@pytest.mark.parametrize("rounding", ["gptq", "qat"])
def test_codes_are_kept(place, tmp_path, rounding):
    flags = ("--to", "q8_0", "--rounding", rounding, "--recover-steps", "4")
    assert run(place, tmp_path / "out", *flags) == 0
    codes = load_codes(tmp_path / "out" / "model")
    assert {codes[name][0].dtype for name in codes} == {np.dtype(np.int8)}
    assert "blocks.feedforward.down.kernel" in codes


def test_a_recovery_that_diverges_keeps_what_was_done(place, tmp_path, capsys):
    out = tmp_path / "out"
    rate = ("--prune", "0.3", "--recover-steps", "40", "--learning-rate", "1e30")
    assert run(place, out, *rate) == 1
    assert "a lower --learning-rate may help" in capsys.readouterr().err
    assert any((out / "steps").iterdir())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prune", "1.0"], "--prune 1.0 must be"),
        (["--to", "q9"], "--to q9 must be"),
        (["--rounding", "magic"], "--rounding magic must be"),
        (["--max-size", "0.001"], "the limits cannot be kept"),
        (["--recover-steps", "-1"], "--recover-steps -1 must be"),
        (["--rounding", "qat", "--recover-steps", "0"], "--recover-steps of 1 or more"),
        (["--window", "17"], "--window 17 is longer than the 16 tokens"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(place, tmp_path, capsys, flags, said):
    assert run(place, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
