"""Latency: what is fitted, what is kept, what a search makes of it."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from calibrated import LATENCY
from cost_configs import VARIANTS, of_family
from results import made_result

from arch import ArchitectureConfig, cost
from arch.cost.calibrated import TERMS
from arch.families import FAMILIES
from arch.space import Space
from arch.spaces import SPACES
from jaxnas.analytic.exhaustive import score_space
from jaxnas.analytic.objectives import Use
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.evaluation.costs import costs_of
from jaxnas.latency import finalists, store
from jaxnas.latency.compare import agreement, compare
from jaxnas.latency.configs import as_executed, draw_configs
from jaxnas.latency.fit import READINGS, fit, table_of
from jaxnas.latency.measure import Measured, Spread
from jaxnas.report.latency import over_limit
from jaxnas.run import main
from jaxnas.storage.jsonl import Lines

CPU = cost.HARDWARE["cpu-core"]
HERE = dataclasses.replace(CPU, calibrated=LATENCY)


def clocked(configs, rates, noise=0.0):
    """What a device with these rates would have measured."""
    rng = np.random.default_rng(0)
    both = []
    for reading in READINGS.values():
        exact = 1e3 * table_of(configs, reading, CACHE) @ np.asarray(rates)
        noisy = exact * rng.uniform(1 - noise, 1 + noise, len(configs))
        both.append([Spread(one, one, one) for one in noisy.tolist()])
    return [Measured(*one) for one in zip(*both, strict=True)]


CACHE = 1 << 23


def some_rates():
    each = {"launches": 5e-5, "flops": 2e-11, "bytes": 1e-10}
    return [each.get(name.split()[-1], 5e-5) for name in TERMS]


def test_a_fit_finds_the_rates_of_a_made_up_device():
    configs = draw_configs(3, 50)
    found = fit(configs[:30], clocked(configs[:30], some_rates()))
    assert found.prefill.error < 0.02
    assert found.decode.error < 0.02
    device = dataclasses.replace(CPU, calibrated=found)
    for config, truth in zip(configs, clocked(configs, some_rates()), strict=True):
        prefill, decode = (one.median for one in truth)
        assert cost.prefill_ms(config, device) == pytest.approx(prefill, rel=0.05)
        assert cost.decode_ms(config, device) == pytest.approx(decode, rel=0.05)


def test_the_error_is_of_models_left_out():
    configs = draw_configs(3, 30)
    found = fit(configs, clocked(configs, some_rates(), noise=0.3))
    # Noise of up to 30 % has a median of 15 %; a fit of its own rows hides some.
    assert 0.08 < found.decode.error < 0.3
    with pytest.raises(ValueError, match="1 models are too few"):
        fit(configs[:1], clocked(configs[:1], some_rates()))


def test_configs_are_distinct_small_and_of_every_family_and_width():
    configs = draw_configs(0, 36)
    assert configs[:20] == draw_configs(0, 20)
    assert configs != draw_configs(1, 36)
    assert len({(c.arch_type, c.hidden_dim) for c in configs}) == 36
    assert len(set(configs)) == 36
    assert max(map(cost.parameters, configs)) <= 40_000_000


@pytest.mark.parametrize("family", FAMILIES)
def test_the_executed_model_is_the_pruned_one_with_full_weights(family):
    stored = of_family(family, quantization="int4", pruning_ratio=0.5)
    run = as_executed(stored)
    assert (run.quantization, run.pruning_ratio) == ("fp16", 0.0)
    assert cost.parameters(run) == cost.stored_parameters(stored)
    # How weights are stored is no matter for a calibrated prediction.
    assert cost.prefill_ms(run, HERE) == cost.prefill_ms(stored, HERE)
    assert cost.decode_ms(run, HERE) == cost.decode_ms(stored, HERE)
    assert cost.decode_ms(run, CPU) != cost.decode_ms(stored, CPU)


def test_calibrated_columns_of_a_space_are_its_configs():
    full = SPACES["full"].choices
    space = Space("some", (full[0], *(choices[:2] for choices in full[1:])))
    fields = {"vocab_size": 300}
    rng = np.random.default_rng(0)
    for family in score_space(
        space, ["prefill", "decode"], Use(hardware=HERE), **fields
    ):
        for row in rng.integers(len(family.cells), size=3):
            genome = family.grid.genome(family.place(row))
            config = space.decode(genome, **fields)
            expected = [cost.prefill_ms(config, HERE), cost.decode_ms(config, HERE)]
            assert family.values[row].tolist() == expected


@pytest.mark.parametrize("config", VARIANTS[::5])
def test_a_scan_takes_longer_the_more_it_reads(config):
    took = [cost.prefill_ms(config, HERE, tokens=tokens) for tokens in (64, 128, 512)]
    assert took == sorted(took)
    assert took[0] < took[2] / 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rates": {"matmul": 1e-9}}, "rate 'matmul'"),
        ({"rates": {"call": -1.0}}, "rate 'call'=-1.0"),
        ({"rates": {"call": float("nan")}}, "rate 'call'=nan"),
        ({"cache_bytes": -1}, "cache_bytes=-1"),
    ],
)
def test_rates_that_are_none_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(LATENCY.decode, **changes)


def test_an_objective_is_the_latency_that_was_asked_for():
    config = VARIANTS[0]
    assert costs_of(config, HERE, "prefill").latency_ms == cost.prefill_ms(config, HERE)
    assert costs_of(config, HERE, "decode").latency_ms == cost.decode_ms(config, HERE)
    assert costs_of(config, CPU).latency_ms == cost.latency_ms(config, CPU)


# ---- kept ----


def test_a_calibration_is_kept_and_a_damaged_one_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / "new"))
    [device, *_] = jax.devices()
    assert store.read_calibration(device) is None
    assert store.keep_calibration(device, LATENCY, seed=3)
    assert store.read_calibration(device) == LATENCY
    monkeypatch.setattr(store, "measure", None)  # what is kept is not measured
    assert store.calibration_for(device) == LATENCY
    path = store.path_of(device)
    assert json.loads(path.read_text())["seed"] == 3
    path.write_text(path.read_text().replace('"prefill"', '"prefil"'))
    assert store.read_calibration(device) is None


def test_a_device_without_a_calibration_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr(
        store, "measure", lambda configs, *_: clocked(configs, some_rates())
    )
    said = []
    first = store.calibration_for(jax.devices()[0], said.append)
    assert len(said) == 1
    monkeypatch.setattr(store, "measure", None)
    assert store.calibration_for(jax.devices()[0], said.append) == first
    assert len(said) == 1


def test_calibrate_keeps_and_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr(
        "jaxnas.latency.measure.measure",
        lambda configs, *_: clocked(configs, some_rates()),
    )
    out = tmp_path / "all.json"
    assert main(["calibrate", "--check", "30", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    kept = store.read_calibration(jax.devices()[0])
    assert dataclasses.asdict(kept) == result["calibrated"]
    assert (len(result["measured"]), len(result["checked"])) == (30, 30)
    for row in result["agreement"]:
        assert f"{row['error']:.1%}" in printed
    assert str(store.path_of(jax.devices()[0])) in printed


def test_a_run_keeps_the_calibration_that_it_began_with(tmp_path):
    decode = RunConfig(space="medium", latency="decode").resolve("cpu")
    assert finalists.hardware_of(decode) == HERE
    began = dataclasses.replace(LATENCY, decode=LATENCY.prefill)
    profile = dataclasses.asdict(dataclasses.replace(HERE, calibrated=began))
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"decides": {"hardware_profile": profile}}))
    assert finalists.hardware_of(decode, manifest).calibrated == began
    manifest.write_text("{}")
    with pytest.raises(UsageError, match="is damaged: it is no manifest"):
        finalists.hardware_of(decode, manifest)


def test_a_profile_stands_for_a_device_without_one(monkeypatch):
    config = RunConfig(latency="prefill", hardware="h100").resolve("cpu")
    monkeypatch.setattr(finalists, "DEVICE_KINDS", {})
    found = finalists.hardware_of(config)
    assert (found.name, found.calibrated) == ("h100", LATENCY)


def test_only_this_device_is_calibrated():
    words = "prefill for h100, by the roofline: it is not this device"
    other = finalists.hardware_of(
        RunConfig(latency="prefill", hardware="h100").resolve("cpu")
    )
    assert other == cost.HARDWARE["h100"]
    assert finalists.describe_latency("prefill", other) == words
    assert finalists.hardware_of(RunConfig().resolve("cpu")) == CPU
    assert finalists.measure_finalists([], other, None, print) == []


@pytest.mark.parametrize(
    ("given", "latency", "measured"),
    [
        ({}, "estimate", 1),
        ({"space": "medium"}, "prefill", 5),
        ({"latency": "decode", "top_k": 3}, "decode", 3),
        ({"space": "full", "latency": "estimate", "measure_top": 0}, "estimate", 0),
    ],
)
def test_what_a_search_minimises_and_measures(given, latency, measured):
    config = RunConfig(**given).resolve("cpu")
    assert (config.latency, config.measure_top) == (latency, measured)


# ---- by the clock ----


def test_finalists_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnas.latency.measure.SECONDS", 0.01)
    config = of_family("transformer", num_layers=1, hidden_dim=32, vocab_size=64)
    lines = [made_result(7, config=config)]
    said = []
    with Lines(tmp_path / "timings.jsonl") as timings:
        [one] = finalists.measure_finalists(lines, HERE, timings, said.append)
    assert (one["id"], len(said)) == (7, 1)
    assert one["predicted"]["prefill"] == cost.prefill_ms(config, HERE)
    for found in one["measured"].values():
        assert 0 < found["least"] <= found["median"] <= found["greatest"]
    prefill, decode = (one["measured"][name]["median"] for name in READINGS)
    assert decode < prefill
    monkeypatch.setattr(finalists, "measure", None)
    with Lines(tmp_path / "timings.jsonl") as timings:
        assert finalists.measure_finalists(lines, HERE, timings, said.append) == [one]
    assert len(said) == 1


def test_of_a_winner_over_the_limit_by_the_clock_a_line_is_said():
    timed = Measured(Spread(2.0, 1.9, 2.1), Spread(0.5, 0.4, 0.6))
    found = [
        finalists.Finalist(
            id=3, predicted={"prefill": 1.0, "decode": 0.2}, measured=timed
        )
    ]
    said = over_limit(found, 3, "estimate", 1.5)
    assert "takes 2.00 ms, over the limit of 1.5 ms" in said
    assert "--latency prefill" in said
    assert "--latency" not in over_limit(found, 3, "decode", 0.4)
    for other in ((found, 3, "estimate", 2.5), (found, 3, "decode", 1.5)):
        assert over_limit(*other) is None
    assert over_limit(found, 4, "estimate", 1.5) is None  # another won


@pytest.mark.parametrize("number", [1, 2])
def test_too_few_models_to_rank_have_no_rank_correlation(number):
    found = agreement([1.0, 2.0][:number], [1.5, 2.5][:number], [64, 128][:number])
    assert (found.within, found.mean, found.lowest) == (None, None, None)
    assert (found.spearman is None) == (number == 1)
    assert found.error > 0


def test_agreement_is_overall_and_among_models_of_a_width():
    widths = [64] * 4 + [128] * 4 + [256]
    measured = [1.0, 2, 3, 4, 10, 20, 30, 40, 100]
    found = agreement([1.1, 2.2, 3.3, 4.4, 40, 30, 20, 10, 100], measured, widths)
    assert found.error == pytest.approx(0.1)
    assert found.worst == pytest.approx(3.0)
    assert (found.mean, found.lowest) == (pytest.approx(0), pytest.approx(-1))
    # Widths alone rank all models well; among those of one it is a coin's toss.
    assert -0.5 < found.within < 0.5
    assert 0.7 < found.spearman < 1


def test_flops_alone_stand_beside_with_a_rate_of_their_own():
    configs = draw_configs(0, 48)
    measured = clocked(configs, some_rates())
    fitted, checked = (configs[:24], measured[:24]), (configs[24:], measured[24:])
    rows = compare(fit(*fitted), CPU, fitted, checked)
    error = {(row["reading"], row["predictor"]): row["error"] for row in rows}
    for name in READINGS:
        assert error[name, "calibrated"] < 0.05 < error[name, "FLOPs alone"] < 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--models", "3"], "--models must be at least 12"),
        (["--check", "-1"], "--check must be at least 0"),
        (["--seed", "-1"], "--seed in 0 to"),
    ],
)
def test_calibrate_refuses_in_one_line(capsys, words, said):
    assert main(["calibrate", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_the_recorded_table_is_what_its_measurements_give():
    folder = Path(__file__).parents[1] / "experiments/latency"
    result = json.loads((folder / "result.json").read_text())
    parts = []
    for rows in (result["measured"], result["checked"]):
        configs = [ArchitectureConfig(**row["config"]) for row in rows]
        clock = [Measured(*(Spread(**row[name]) for name in READINGS)) for row in rows]
        parts.append((configs, clock))
    fitted, checked = parts
    assert not set(fitted[0]) & set(checked[0])
    assert {one.arch_type for one in checked[0]} == {*FAMILIES}
    found = compare(fit(*fitted), CPU, fitted, checked)
    shown = (folder / "README.md").read_text()
    for row, recorded in zip(found, result["agreement"], strict=True):
        assert row.keys() == recorded.keys()
        assert list(row.values())[2:] == pytest.approx(
            list(recorded.values())[2:], rel=1e-3
        )
        figures = (row["spearman"], row["within"], row["mean"], row["lowest"])
        words = [f"{row['error']:.1%}", f"{row['worst']:.0%}"]
        words += [f"{figure:.3f}" for figure in figures]
        assert [row["reading"], *row["predictor"].split(), *words] in [
            line.split() for line in shown.splitlines()
        ]
        if row["predictor"] == "calibrated":
            assert row["error"] <= 0.15
            assert row["spearman"] >= 0.95
            assert row["within"] >= 0.9
