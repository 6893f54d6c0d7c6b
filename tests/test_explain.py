"""`explain` and `compare`: the parts are the whole, and bad input is one line."""

import dataclasses

import pytest

from arch.baselines import BASELINES
from arch.cost import (
    decode_ms,
    parameters,
    prefill_ms,
    size_bytes,
    state_bytes,
    stored_parameters,
)
from arch.cost.sizes import sizes_of
from arch.open_models import open_model
from arch.published import KNOWN
from jaxnas.analytic.breakdown import breakdown
from jaxnas.analytic.objectives import OBJECTIVES, Use
from jaxnas.analytic.tensor_parallel import REDUCE_SECONDS
from jaxnas.automl.named_shape import named_shape
from jaxnas.errors import UsageError
from jaxnas.hardware_profiles import PROFILES
from jaxnas.run import main

MODELS = {name: known.config for name, known in KNOWN.items()} | BASELINES


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_are_the_whole(name):
    config = MODELS[name]
    use = Use(hardware=PROFILES["a100"], prompt=64, context=256)
    parts = breakdown(config, use)
    assert sum(part.parameters for part in parts) == stored_parameters(config)
    kept = size_bytes(config) + state_bytes(config, 1, 256, 2)
    assert sum(part.mib for part in parts) == pytest.approx(kept / 2**20)
    prefill = prefill_ms(config, use.hardware, 1, 64)
    assert sum(part.prefill_ms for part in parts) == pytest.approx(prefill)
    decode = decode_ms(config, use.hardware, 1, 256)
    assert sum(part.decode_ms for part in parts) == pytest.approx(decode)


@pytest.mark.parametrize("name", ["Llama-3-8B", "Mamba-130m"])
def test_the_parts_are_the_whole_on_eight_devices(name):
    config, sizes = MODELS[name], sizes_of(MODELS[name])
    use = Use(hardware=PROFILES["h100"], devices=8, prompt=64, context=256)
    parts = breakdown(config, use)
    for objective, own in (("prefill", "prefill_ms"), ("decode", "decode_ms")):
        whole = float(OBJECTIVES[objective].of(sizes, sizes, use))
        assert sum(getattr(part, own) for part in parts) == pytest.approx(whole)


def test_devices_share_work_but_not_launches_and_reductions():
    sizes = sizes_of(MODELS["Llama-3-8B"])

    def ms(**changes):
        use = Use(**({"hardware": PROFILES["h100"], "context": 256} | changes))
        return float(OBJECTIVES["decode"].of(sizes, sizes, use))

    quick = dataclasses.replace(PROFILES["h100"], launch_seconds=0.0)
    alone, shared = ms(hardware=quick), ms(hardware=quick, devices=8, link=1e30)
    reductions = 2 * 32 * REDUCE_SECONDS * 1e3
    assert shared == pytest.approx(alone / 8 + reductions)
    # A ring of two moves as much as is reduced.
    slow = ms(hardware=quick, devices=2, link=1e9) - ms(
        hardware=quick, devices=2, link=1e30
    )
    assert slow == pytest.approx(1e3 * 2 * 32 * 4096 * 2 / 1e9)
    launches = ms(devices=8) - ms(hardware=quick, devices=8)
    assert launches == pytest.approx(ms() - alone)


def test_a_shape_by_its_numbers_is_the_model_s():
    text = "hidden=4096,layers=32,heads=32,kv=8,ffn=3.5,vocab=128256"
    own, model = named_shape(text), open_model("Llama-3-8B").config
    assert parameters(own) == parameters(model)
    assert named_shape("mamba-130m") == KNOWN["Mamba-130m"].config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("llama-9", "no shape 'llama-9': write hidden=4096"),
        ("hidden=4096", "lacks layers"),
        ("hidden=4096,layers=x,heads=1", "'layers=x' has no number"),
        ("hidden=100,layers=1,heads=3", "num_heads=3 is not allowed"),
        ("hidden=4096,width=2", "no 'width' here"),
        ("nowhere.json", "cannot read nowhere.json"),
        (f"hidden={2**40},layers=1,heads=1", "beyond what can be counted"),
    ],
)
def test_what_is_no_shape_is_refused_in_one_line(text, said):
    with pytest.raises(UsageError) as caught:
        named_shape(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_file_is_a_shape(tmp_path):
    path = tmp_path / "config.json"
    config = BASELINES["llama-like"]
    path.write_text(config.to_json())
    assert named_shape(str(path)) == config
    path.write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        named_shape(str(path))


def test_explain_prints_parts_and_bars(capsys):
    assert main(["explain", "llama-3-8b", "--hardware", "rtx-3090"]) == 0
    printed = capsys.readouterr().out
    assert "together" in printed
    assert "8.03B" in printed
    assert "█" in printed


def test_compare_says_how_much_more_than_the_first(capsys):
    assert main(["compare", "llama-3-8b", "mistral-7b"]) == 0
    printed = capsys.readouterr().out
    assert "8,030,261,248" in printed
    assert "7,241,732,096 -9.8 %" in printed


MOST = str(2**32 - 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain", "llama-3-8b", "--hardware", "abacus"], "no hardware 'abacus'"),
        (["explain", "llama-3-8b", "--batch", "0"], "batch=0 is not allowed"),
        (["explain", "llama-3-8b", "--tokens", "many"], "--tokens many is no number"),
        (
            ["explain", "llama-3-8b", "--context", MOST, "--batch", MOST],
            "cannot be counted",
        ),
        (["compare", "llama-3-8b"], "compare needs two or more, shapes or runs"),
    ],
)
def test_both_refuse_in_one_line(words, said, capsys):
    assert main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
