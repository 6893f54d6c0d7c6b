"""A space as a grid of columns, its exact Pareto front, and the command."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest
from results import made_result

from arch.cost import HARDWARE, decode_ms, prefill_ms, size_bytes, state_bytes
from arch.genes import GENES
from arch.scaling.laws import LAWS
from arch.scaling.predicted_loss import predicted_loss
from arch.space import Space
from arch.spaces import SPACES
from jaxnas.analytic.exhaustive import front_of, score_space
from jaxnas.analytic.law_fit import rows_of
from jaxnas.analytic.limits import Limit, violation
from jaxnas.analytic.objectives import OBJECTIVES, Use
from jaxnas.config import RunConfig
from jaxnas.evaluation.costs import costs_of
from jaxnas.run import main
from search.pareto.exact_front import exact_front

FIELDS = {"vocab_size": 1000, "max_seq_length": 256}
USE = Use(hardware=HARDWARE["a100"], training_tokens=1e8)


def brute_front(values):
    finite = np.isfinite(values).all(axis=1)
    return [
        row
        for row, one in enumerate(values)
        if finite[row]
        and not (
            (values <= one).all(axis=1) & (values < one).any(axis=1) & finite
        ).any()
    ]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("choices", [2, 5, 1000])
def test_exact_front_is_that_of_brute_force(objectives, choices):
    rng = np.random.default_rng(objectives * choices)
    for number in (0, 1, 2, 9, 200):
        values = rng.integers(0, choices, (number, objectives)).astype(float)
        values[rng.random(values.shape) < 0.02] = np.nan
        values[rng.random(values.shape) < 0.02] = -np.inf
        assert exact_front(values).tolist() == brute_front(values)


def mixed_space():
    """All families, widths that not all heads divide, genes in no special order."""
    full = SPACES["full"]
    choices = {gene: full.values(gene)[:1] for gene in GENES}
    choices |= {
        "arch_type": full.values("arch_type"),
        "num_layers": (4, 2),
        "hidden_dim": (96, 128, 36),
        "num_heads": (6, 4, 1),
        "normalization": ("groupnorm", "layernorm"),
        "activation": ("swiglu", "gelu"),
        "position_encoding": ("rope", "alibi"),
        "residual_dropout": (0.1, 0.0),
        "quantization": ("int8", "int4"),
        "pruning_ratio": (0.4, 0.0),
    }
    return Space("mixed", tuple(choices[gene] for gene in GENES))


def distinct(space):
    """Every model of a space, by decoding every genome."""
    found = set()
    for index in range(space.total):
        with contextlib.suppress(ValueError):  # it does not exist
            found.add(space.decode(space.genome_at(index), **FIELDS))
    return list(found)


def own_space():
    """Genes of its own, in no special order, with a condition."""
    choices = {
        "tie_embeddings": (True, False),
        "hidden_dim": (96, 128, 36),
        "head_dim": (12, 32, 9),
        "arch_type": ("rwkv", "grouped_query_attention", "mamba", "transformer"),
        "kv_group": (4, 2),
        "num_layers": (2, 4),
        "activation": ("relu2", "geglu"),
        "quantization": ("int8", "int4"),
        "ffn_dim": (128, 32),
        "inner_dim": (64, 200),
    }
    left_out = {"quantization": ("int4",), "arch_type": ("mamba", "rwkv")}
    return Space("own", tuple(choices.values()), tuple(choices), (left_out,))


def family_space():
    """Of one family, which no gene names."""
    choices = {
        "hidden_dim": (96, 36),
        "num_layers": (2, 4),
        "pruning_ratio": (0.0, 0.5),
    }
    return Space("family", tuple(choices.values()), tuple(choices))


@pytest.fixture(scope="module", params=[mixed_space, own_space, family_space])
def mixed(request):
    space = request.param()
    return space, distinct(space)


def test_grids_hold_each_distinct_model_once_with_its_costs(mixed):
    space, models = mixed
    names = ["params", "size", "flops", "latency", "loss"]
    families = score_space(space, names, USE, **FIELDS)
    assert sum(one.genomes.sum() for one in families) == len(models)
    assert len(models) == space.distinct_count
    for scored in families:
        assert scored.genomes.min() > 0
        for row in range(0, len(scored.cells), 5):
            genome = scored.grid.genome(scored.place(row))
            assert np.array_equal(genome, space.canonical(genome))
            config = space.decode(genome, **FIELDS)
            assert config in models
            assert scored.values[row].tolist() == figures_of(config, names)


@pytest.mark.parametrize(
    ("objectives", "limits"),
    [
        (["size", "latency", "loss"], []),
        (["params", "decode"], [Limit("size", most=0.35)]),
        (["loss", "memory", "prefill"], [Limit("latency", 0.01, 0.05)]),
        (["loss"], []),
    ],
)
@pytest.mark.sweep(2)
def test_a_space_has_the_front_that_brute_force_finds(mixed, objectives, limits):
    space, models = mixed
    figures = [*objectives, *(limit.objective for limit in limits)]
    values = np.asarray([figures_of(config, figures) for config in models])
    named = dict(zip(figures, values.T, strict=True))
    kept = np.broadcast_to(violation(limits, named) == 0, len(values))
    mine = np.where(kept[:, None], values[:, : len(objectives)], np.nan)
    expected = brute_front(mine)
    found = front_of(space, objectives, USE, limits, **FIELDS)
    points = {point.values[: len(objectives)] for point in found.points}
    assert points == {tuple(mine[row]) for row in expected}
    assert sum(point.genomes for point in found.points) == len(expected)
    assert (found.genomes, found.feasible) == (len(models), kept.sum())
    for point in found.points:
        own = figures_of(point.config, figures)[: len(objectives)]
        assert own == list(point.values[: len(objectives)])


def figures_of(config, names):
    """A config's figures, by the functions of one config."""
    costs = costs_of(config, USE.hardware)
    every = {
        "params": costs.parameters,
        "size": costs.size_mib,
        "flops": costs.forward_flops / 1e9,
        "latency": costs.latency_ms,
        "prefill": prefill_ms(config, USE.hardware),
        "decode": decode_ms(config, USE.hardware),
        "memory": (size_bytes(config) + state_bytes(config)) / 2**20,
        "loss": predicted_loss(config, USE.training_tokens),
    }
    return [every[name] for name in names]


def test_limits_are_shares_of_the_bound_and_name_what_binds():
    values = {"size": np.asarray([1.0, 3.0]), "loss": np.asarray([2.0, 2.0])}
    limits = [Limit("size", most=2.0), Limit("loss", least=4.0)]
    assert violation(limits, values).tolist() == [0.5, 1.0]
    space = SPACES["minimal"]
    found = front_of(space, ["size"], USE, [Limit("size", most=1.0)], **FIELDS)
    assert not found.points
    [binding] = found.binding
    assert (binding.met, binding.limit.most) == (0, 1.0)
    least = min(size_bytes(config) for config in distinct(space))
    assert binding.closest == least / 2**20


def test_front_command_writes_what_it_prints(tmp_path, capsys):
    out = tmp_path / "front"
    assert main(["front", "medium", "--out", str(out), "--max", "size=40"]) == 0
    printed = capsys.readouterr().out
    written = json.loads((out / "front.json").read_text())
    assert f"{len(written['points'])} points on the front" in printed
    assert "counted with a vocabulary of 8,192, 128 tokens read\n" in printed
    assert all(point["values"]["size"] <= 40 for point in written["points"])
    ends = (written["points"][0], written["points"][-1])
    for end in ends:  # a part is shown, from end to end
        assert f"{end['values']['loss']:.4f}" in printed
    assert "a ranking, not a loss" in printed
    assert (out / "front.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no space 'nowhere': choose minimal, medium, full"),
        (["minimal", "--objectives", "size,speed"], "no objective 'speed'"),
        (["minimal", "--objectives", "size,size"], "named twice"),
        (["minimal", "--max", "size"], "needs OBJECTIVE=NUMBER"),
        (["minimal", "--max", "size=nan"], "needs OBJECTIVE=NUMBER"),
        (["minimal", "--max", "size=1", "--min", "size=2"], "leaves nothing"),
        (["minimal", "--max", "size=1"], "no model of the space keeps the limits"),
        (["minimal", "--hardware", "abacus"], "no hardware 'abacus'"),
        (["minimal", "--vocab-size", "0"], "--vocab-size must be at least 1"),
        (["minimal", "--train-tokens", "inf"], "--train-tokens must be at least 1"),
        (["minimal", "--train-tokens", "nan"], "--train-tokens must be at least 1"),
        (["minimal", "--law", "hoffmann2022", "--fit", "run"], "--fit fits another"),
        (["minimal", "--max", "size=1", "--max", "size=9"], "no model of the space"),
        (["minimal", "--max", "size=9", "--max", "size=1"], "no model of the space"),
        (["minimal", "--min", "size=99", "--min", "size=9"], "no model of the space"),
    ],
)
def test_front_command_refuses_in_one_line(capsys, words, said):
    assert main(["front", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_every_objective_says_what_it_is():
    for objective in OBJECTIVES.values():
        assert objective.title
        assert format(1.5, objective.form)
        assert not objective.about.endswith(".")


@pytest.mark.slow
def test_a_law_is_fitted_to_what_a_run_measured(tmp_path, capsys):
    """In all its phases."""
    law = dataclasses.replace(LAWS["besiroglu2024"], families=(0.0,) * 6)
    run = tmp_path / "run"
    run.mkdir()
    settings = RunConfig(space="medium", phases="1000,4000x2", window=64)
    (run / "config.toml").write_text(settings.to_toml())
    genomes = SPACES["medium"].sample(jax.random.key(0), 40)
    every = [SPACES["medium"].decode(genome, **FIELDS) for genome in genomes]

    def lines(configs, tokens, **more):
        results = [
            made_result(config=config, loss=predicted_loss(config, tokens, law))
            for config in configs
        ]
        return [json.dumps(result.to_row() | more) for result in results]

    failed = json.dumps(made_result(status="failed").to_row())
    first = [*lines(every, 1000 * 64), failed]
    (run / "results.jsonl").write_text("\n".join(first) + "\n{cut short")
    later = lines(every[:10], 8000 * 64, phase="4000x2", by="rank")
    (run / "rungs.jsonl").write_text("\n".join(later) + "\n")
    tokens = [row.tokens for row in rows_of(run)]
    assert tokens == 40 * [64_000.0] + 10 * [512_000.0]
    assert main(["front", "medium", "--fit", str(run), "--vocab-size", "1000"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "predicted loss, fitted on 50 measured losses" in printed
    error = float(printed.split("rows left out ")[1].split(",")[0])
    assert error < 0.01


def test_a_fit_of_nothing_is_refused_in_one_line(tmp_path, capsys):
    assert main(["front", "minimal", "--fit", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    (tmp_path / "config.toml").write_text("samples = 8\nepochs = 1\nwindow = 8\n")
    (tmp_path / "results.jsonl").write_text("")
    assert main(["front", "minimal", "--fit", str(tmp_path)]) == 2
    assert "0 rows are too few" in capsys.readouterr().err
    (tmp_path / "results.jsonl").write_text("{}\n")
    assert main(["front", "minimal", "--fit", str(tmp_path)]) == 2
    assert "damaged in line 1" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused_first(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*["front", "minimal"], "--out", str(tmp_path / "file" / "x")]) == 2
    captured = capsys.readouterr()
    assert captured.err.strip().endswith("Not a directory")
    assert not captured.out
