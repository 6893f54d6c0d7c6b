"""Specs, their shapes as a space, and the analytic search over them."""

import dataclasses
import itertools
import json
import re
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from arch import ArchitectureConfig
from arch.cost import (
    decode_ms,
    parameters,
    prefill_ms,
    size_bytes,
    state_bytes,
)
from arch.cost.sizes import sizes_of
from arch.scaling.predicted_loss import predicted_loss
from arch.scaling.shape import shape_penalty
from jaxnas.automl.history import keep_in, seeds_from
from jaxnas.automl.problem import Problem
from jaxnas.automl.prototypes import LAYERS, WIDTH, scaled_down, train_prototypes
from jaxnas.automl.search import EXHAUSTIVE, SEARCHES, search_shapes
from jaxnas.automl.shapes import Shapes
from jaxnas.automl.spec import make_spec, read_spec, shipped_specs
from jaxnas.automl.spec_checks import SpecError
from jaxnas.run import main

AIMS = ("params", "latency", "performance")


def small(family="transformer", **changes):
    """A spec whose grid can be counted by hand."""
    dimensions = {"hidden_size": [64, 96, 160], "num_layers": [2, 3]}
    if family not in ("mamba", "rwkv"):
        dimensions |= {"num_heads": {"min": 1, "max": 8}, "head_size": [16, 24, 32]}
    if family != "mamba":
        dimensions |= {"ffn_multiplier": [2.0, 2.5]}
    if family == "grouped_query_attention":
        dimensions |= {"kv_heads": ["half", 1, 2]}
    values = {
        "family": family,
        "dimensions": dimensions,
        "model": {"vocab_size": 500, "context": 64},
        "deployment": {"hardware": "cpu-core", "prompt": 32},
    }
    return make_spec(values | changes)


def every_config(spec):
    """All shapes of a small spec, by building each config that might exist."""
    names = list(spec.dimensions)
    found = {}
    for values in itertools.product(*spec.dimensions.values()):
        at = dict(zip(names, values, strict=True))
        heads = at.get("num_heads", 1)
        if "num_heads" in at:
            size, rest = divmod(at["hidden_size"], heads)
            if rest or size not in spec.head_size:
                continue
        try:
            config = ArchitectureConfig(
                arch_type=spec.family,
                hidden_dim=at["hidden_size"],
                num_layers=at["num_layers"],
                num_heads=heads,
                ffn_multiplier=at.get("ffn_multiplier", 4.0),
                kv_heads=at.get("kv_heads") or None,
                **spec.model,
            )
        except ValueError:
            continue
        found[values] = config
    return found


FAMILIES = [
    "transformer",
    "linear_transformer",
    "flash_attention",
    "grouped_query_attention",
    "mamba",
    "rwkv",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_the_configs_that_exist(family):
    spec = small(family)
    shapes, expected = Shapes(spec), every_config(spec)
    found = {}
    for block in shapes.blocks():
        columns = np.broadcast_arrays(*block.genomes)
        genomes = np.stack([column.reshape(-1) for column in columns], 1)
        for genome in genomes.astype(np.int32):
            values = [
                choices[index]
                for choices, index in zip(shapes.choices.values(), genome, strict=True)
            ]
            found[tuple(values)] = shapes.config(genome)
            assert bool(shapes.valid(genome))
            np.testing.assert_array_equal(
                shapes.repair(jax.numpy.asarray(genome)), genome
            )
    assert found == expected
    assert shapes.total == len(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_genome_is_repaired_into_a_valid_one_of_its_width(family):
    shapes = Shapes(small(family))
    lengths = np.asarray(shapes.cardinality)
    genomes = np.stack(np.meshgrid(*map(np.arange, lengths)), -1).reshape(
        -1, len(lengths)
    )
    repaired = np.asarray(jax.vmap(shapes.repair)(jax.numpy.asarray(genomes, np.int32)))
    assert np.array_equal(repaired, shapes.repaired(genomes))
    assert np.asarray(jax.vmap(shapes.valid)(repaired)).all()
    free = [shapes.names.index(name) for name in ("hidden_size", "num_layers")]
    assert np.array_equal(repaired[:, free], genomes[:, free])


@pytest.mark.parametrize("family", FAMILIES)
def test_figures_are_those_of_each_config(family):
    spec = small(family, constraints={"size": {"max": 0.2}})
    problem = Problem(spec, (*AIMS, "memory"))
    every = problem.everything()
    hardware, context = spec.use.hardware, spec.use.context
    for row, genome in enumerate(every.genomes):
        config = problem.shapes.config(genome)
        sizes = problem.shapes.sizes(genome)
        expected = sizes_of(config)._asdict()
        for name in sizes._fields[1:]:
            if name != "storage":
                assert int(getattr(sizes, name)) == expected[name], name
        remembered = state_bytes(config, 1, context, hardware.value_bytes)
        expected = {
            "params": parameters(config),
            "prefill": prefill_ms(config, hardware, 1, spec.use.prompt),
            "decode": decode_ms(config, hardware, 1, context),
            "memory": (size_bytes(config) + remembered) / 2**20,
            "loss": predicted_loss(config, spec.use.training_tokens)
            * (1 + shape_penalty(sizes_of(config))),
            "size": size_bytes(config) / 2**20,
        }
        for name, value in expected.items():
            if name == "loss":  # NumPy's logarithms of columns may round otherwise
                value = pytest.approx(value, rel=1e-14)
            assert every.values[name][row] == value
        assert (every.violation[row] > 0) == (expected["size"] > 0.2)
    alone = problem.candidates(every.genomes)
    for name, column in every.values.items():
        np.testing.assert_array_equal(alone.values[name], column)


def test_losses_under_jit_are_the_scores_and_put_limits_first():
    spec = small(constraints={"params": {"max": 250_000}})
    problem = Problem(spec, AIMS)
    every = problem.everything()
    losses = np.asarray(jax.jit(problem.losses)(jax.numpy.asarray(every.genomes)))
    kept = every.violation <= 0
    assert 0 < kept.sum() < len(kept)
    assert losses[~kept].min() > losses[kept].max()
    order = np.argsort(every.violation[~kept], kind="stable")
    assert (np.diff(losses[~kept][order][:, 0]) >= -1e-6).all()
    scores = 1 - np.asarray(problem.scalarize(losses))
    np.testing.assert_allclose(scores[kept], problem.scores(every)[kept], atol=2e-5)


@pytest.mark.parametrize("strategy", SEARCHES)
@pytest.mark.sweep(3)
def test_a_search_keeps_its_budget_and_finds_the_best(strategy):
    spec = small("grouped_query_attention", constraints={"decode": {"max": 0.1}})
    problem = Problem(spec, AIMS)
    exact = search_shapes(problem, EXHAUSTIVE, 0, 3, jax.random.key(0))
    found = search_shapes(problem, strategy, 60, 3, jax.random.key(0))
    assert found.evaluated <= 60
    best = exact.front.genomes.tolist()
    assert found.top.genomes[0].tolist() in best
    assert (np.diff(found.scores) <= 0).all()
    again = search_shapes(problem, strategy, 60, 3, jax.random.key(0))
    np.testing.assert_array_equal(again.front.genomes, found.front.genomes)


@pytest.mark.slow
def test_the_best_of_the_8b_spec_is_on_the_exact_front():
    problem = Problem(read_spec("8b"), AIMS)
    exact = search_shapes(problem, EXHAUSTIVE, 0, 1, jax.random.key(0))
    front = set(map(tuple, exact.front.genomes.tolist()))
    for strategy in ("evolution", "nsga2"):
        found = search_shapes(problem, strategy, 100_000, 1, jax.random.key(0))
        assert tuple(found.top.genomes[0].tolist()) in front
        assert found.evaluated <= 100_000


def test_shipped_specs_are_of_the_sizes_that_they_name():
    assert shipped_specs() == ["125m", "1b", "70b", "7b", "8b", "laptop", "phone"]
    sizes = {"125m": 125e6, "1b": 1e9, "7b": 7e9, "8b": 8e9, "70b": 70e9}
    for name, size in sizes.items():
        limits = {limit.objective: limit for limit in read_spec(name).limits}
        assert size <= limits["params"].most <= 1.1 * size


def test_a_spec_without_dimensions_has_the_documented_grid():
    spec = make_spec({"family": "transformer"})
    assert spec.dimensions["hidden_size"] == tuple(range(256, 8193, 64))
    assert spec.dimensions["num_layers"] == tuple(range(4, 65))
    assert spec.dimensions["num_heads"] == tuple(range(4, 129))
    assert spec.dimensions["ffn_multiplier"] == tuple(2 + 0.25 * n for n in range(25))
    assert spec.head_size == (64, 96, 128)
    shapes = Shapes(spec)
    assert set(shapes.choices["num_heads"]) <= set(range(4, 129))
    assert {4, 8, 12, 40, 128} <= set(shapes.choices["num_heads"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"famly": "rwkv"}, "unknown key 'famly' in the spec: known are name, family"),
        ({"family": "lstm"}, "family='lstm' must be one of transformer"),
        ({"model": {"vocab": 5}}, "unknown key 'vocab' in [model]"),
        ({"model": {"precision": "int3"}}, "model.precision='int3' must be one of"),
        ({"model": {"vocab_size": 0.5}}, "model.vocab_size=0.5 is not of type int"),
        (
            {"model": {"tie_embeddings": 1}},
            "model.tie_embeddings=1 is not of type bool",
        ),
        ({"dimensions": 3}, "dimensions=3 must be a table"),
        (
            {"dimensions": {"hidden_size": {"min": 512, "max": 256}}},
            "dimensions.hidden_size={'min': 512, 'max': 256}: min 512 is above max 256",
        ),
        (
            {"dimensions": {"hidden_size": {"from": 1}}},
            "unknown key 'from' in dimensions.hidden_size: known are min, max, step",
        ),
        (
            {"dimensions": {"num_layers": {"step": 0}}},
            "dimensions.num_layers.step=0 must be above 0",
        ),
        (
            {"dimensions": {"num_layers": 2.5}},
            "dimensions.num_layers=2.5 is not of type int",
        ),
        ({"dimensions": {"num_layers": []}}, "must hold distinct numbers"),
        ({"dimensions": {"kv_heads": 4}}, "family transformer has none"),
        (
            {"family": "mamba", "dimensions": {"ffn_multiplier": 4}},
            "dimensions.ffn_multiplier: family mamba has none",
        ),
        ({"deployment": {"hardware": "abacus"}}, "deployment.hardware: no hardware"),
        ({"training": {"law": "moore"}}, "training.law='moore' must be one of"),
        ({"training": {"utilization": 2}}, "utilization=2 is not allowed"),
        (
            {"constraints": {"speed": {"max": 1}}},
            "unknown key 'speed' in [constraints]",
        ),
        ({"constraints": {"params": 5}}, "constraints.params=5 must be a table"),
        (
            {"constraints": {"params": {"min": 5, "max": 4}}},
            "constraints.params: min 5 is above max 4",
        ),
        ({"weights": {"params": -1}}, "weights.params=-1 must be at least 0"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(values, said):
    with pytest.raises(SpecError) as caught:
        make_spec(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_heads_that_divide_nothing_are_refused():
    spec = make_spec({"dimensions": {"hidden_size": [256, 512], "num_heads": 7}})
    said = "none of 7 divides a hidden_size of 256, 512 into heads of 64, 96, 128"
    with pytest.raises(SpecError, match=said):
        Shapes(spec)


SPEC = """
family = "transformer"
[dimensions]
hidden_size = [64, 128, 192, 256]
num_layers = [2, 4, 6]
num_heads = [2, 4]
head_size = { min = 32, max = 128 }
ffn_multiplier = [2.0, 4.0]
[model]
vocab_size = 1000
context = 64
[deployment]
hardware = "cpu-core"
prompt = 32
"""


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(SPEC)
    return path


def test_automl_writes_what_it_prints_and_a_seed_gives_the_same_bytes(
    spec_file, tmp_path, capsys
):
    outs = [tmp_path / "first", tmp_path / "second"]
    for out in outs:
        words = ["automl", str(spec_file), "--budget", "40", "--top-k", "3"]
        assert main([*words, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Top 3 by score" in printed
    first, second = [(out / "automl.json").read_bytes() for out in outs]
    assert first == second
    written = json.loads(first)
    assert len(written["top"]) == 3
    for row in [*written["top"], *written["front"]]:
        config = ArchitectureConfig(**row["config"])
        assert row["values"]["params"] == parameters(config)
    assert (outs[0] / "front.png").stat().st_size > 5_000


def test_automl_says_which_limit_binds_when_nothing_keeps_them(
    spec_file, tmp_path, capsys
):
    spec_file.write_text(
        SPEC + "[constraints]\nparams = { max = 1000 }\ndecode = { max = 1e6 }\n"
    )
    out = tmp_path / "out"
    words = ["automl", str(spec_file), "--strategy", "exhaustive", "--out", str(out)]
    assert main(words) == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert "tiny: no shape keeps params <= 1000: it would have to be " in line
    assert "nearest to it" in captured.out
    lines = captured.out.splitlines()
    params = next(one for one in lines if one.startswith("params <= 1000"))
    least = ArchitectureConfig(
        **json.loads((out / "automl.json").read_text())["nearest"]["config"]
    )
    assert f"{parameters(least):,.6g}" in params
    assert " 0.0 %" in params


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.toml"], "cannot read nowhere.toml"),
        (["8b", "--objectives", "speed"], "no objective 'speed'"),
        (["8b", "--objectives", "params,params"], "named twice"),
        (["8b", "--budget", "0"], "--budget and --top-k must be at least 1"),
        (["8b", "--seed", "-1"], "--seed must be in 0"),
    ],
)
def test_automl_refuses_in_one_line(words, said, capsys):
    assert main(["automl", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
def test_shapes_to_start_near_are_said_only_where_they_are_used(
    strategy, spec_file, tmp_path, capsys
):
    words = ["automl", str(spec_file), "--budget", "12", "--strategy", strategy]
    words += ["--history", str(tmp_path / "history")]
    assert main(words) == main(words) == 0
    assert "to start near" not in capsys.readouterr().out
    assert [*(tmp_path / "history").iterdir()]


def test_a_history_that_is_a_file_is_refused_first(spec_file, tmp_path, capsys):
    (tmp_path / "history").write_text("mine")
    words = ["automl", str(spec_file), "--history", str(tmp_path / "history")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"jaxnas: --history {tmp_path / 'history'}: ")


@pytest.mark.slow
def test_history_starts_near_earlier_results_of_the_family(spec_file, tmp_path, capsys):
    history = tmp_path / "history"
    words = ["automl", str(spec_file), "--budget", "12", "--strategy", "evolution"]
    words += ["--similar", "--history", str(history)]
    assert main(words) == 0
    assert main([*words, "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert "0 shapes to start near" in printed
    assert "10 shapes to start near" in printed
    shapes = Shapes(read_spec(str(spec_file)))
    [path, _] = sorted(history.iterdir())
    best = json.loads(path.read_text())["top"][0]["config"]
    seeds = seeds_from(history, shapes)
    found = [shapes.config(genome).to_dict() for genome in seeds]
    assert best in found
    (history / "broken.json").write_text("{")
    assert len(seeds_from(history, shapes)) == len(seeds)
    other = dataclasses.replace(shapes.spec, family="linear_transformer")
    assert seeds_from(history, Shapes(other)) is None
    keep_in(history, {"spec": {"family": "rwkv", "limits": []}, "top": []})
    assert len(seeds_from(history, shapes)) == len(seeds)


def test_prototypes_keep_ratios():
    shapes = Shapes(read_spec("8b"))
    rng = np.random.default_rng(0)
    genomes = shapes.repaired(rng.integers(0, shapes.cardinality, (30, 5)))
    configs = [shapes.config(genome) for genome in genomes]
    small = scaled_down(configs, 1000, 64)
    assert max(config.hidden_dim for config in small) == WIDTH
    assert max(config.num_layers for config in small) == LAYERS
    for large, one in zip(configs, small, strict=True):
        assert (one.vocab_size, one.max_seq_length) == (1000, 64)
        assert one.ffn_multiplier == large.ffn_multiplier
        assert one.num_heads % one.key_value_heads == 0


@pytest.mark.slow
def test_prototypes_are_trained():
    shapes = Shapes(small("transformer"))
    rng = np.random.default_rng(0)
    genomes = shapes.repaired(rng.integers(0, shapes.cardinality, (4, 4)))
    configs = [shapes.config(genome) for genome in genomes]
    losses = [predicted_loss(config, 1e9) for config in configs]
    made = train_prototypes(configs, losses, steps=30, seed=0)
    measured = [one.loss for one in made.each]
    assert all(3 < loss < 7 for loss in measured)  # log(1024) is 6.93
    assert len(made.each) == len(configs)


def test_the_documented_spec_is_the_default():
    page = Path(__file__).parents[1] / "docs" / "automl.md"
    [block] = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    written = tomllib.loads(block)
    limits = written.pop("constraints")
    name = written["name"]
    assert make_spec(written) == make_spec({"name": name})
    assert {one.objective for one in make_spec({"constraints": limits}).limits} == {
        "params",
        "decode",
        "memory",
    }


def test_a_folder_that_cannot_be_made_is_refused_first(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*["automl", "125m"], "--out", str(tmp_path / "file" / "x")]) == 2
    captured = capsys.readouterr()
    assert captured.err.strip().endswith("Not a directory")
    assert not captured.out
