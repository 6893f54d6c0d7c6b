"""Conflicting limits, against brute force; answers that differ; units."""

import itertools
import math
import re
import tomllib

import jax
import numpy as np
import pytest

from jaxnas.analytic.limits import Limit
from jaxnas.automl.conflicts import Conflict, Move, conflict_of, describe
from jaxnas.automl.diverse import best_rows, thinned_front, touched
from jaxnas.automl.problem import Problem
from jaxnas.automl.reasons import outside, reasons
from jaxnas.automl.search import EXHAUSTIVE, search_shapes
from jaxnas.automl.shapes import Shapes
from jaxnas.automl.spec import make_spec, read_spec, shipped_specs
from jaxnas.automl.spec_checks import SpecError
from jaxnas.automl.units import in_plain
from jaxnas.run import main

AIMS = ("params", "latency", "performance")
NAMES = ("params", "decode", "memory", "loss", "prefill", "size")


def spec_of(**changes):
    values = {
        "family": "grouped_query_attention",
        "dimensions": {
            "hidden_size": [256, 384, 512],
            "num_layers": [4, 8, 12],
            "kv_heads": [1, 2],
        },
        "model": {"vocab_size": 1000, "context": 256},
        "deployment": {"hardware": "a100"},
    }
    return make_spec(values | changes)


@pytest.fixture(scope="module")
def values():
    constraints = {name: {"max": 1e12} for name in NAMES}
    return Problem(spec_of(constraints=constraints), AIMS).everything().values


def keeps(limits, values, row):
    return all(
        limit.least <= values[limit.objective][row] <= limit.most for limit in limits
    )


def random_limits(rng, values):
    limits = []
    for name in rng.permutation(NAMES)[: rng.integers(1, 5)]:
        low, high = np.quantile(values[name], rng.uniform(-0.2, 1.2, 2).clip(0, 1))
        low, high = min(low, high), max(low, high)
        kind = rng.integers(3)
        least = -math.inf if kind == 0 else low * rng.uniform(0.9, 1.3)
        most = math.inf if kind == 1 else high * rng.uniform(0.7, 1.1)
        if least <= most:
            limits.append(Limit(str(name), float(least), float(most)))
    return limits


def one_sided(limits):
    for limit in limits:
        if math.isfinite(limit.most):
            yield Limit(limit.objective, most=limit.most)
        if math.isfinite(limit.least):
            yield Limit(limit.objective, least=limit.least)


def test_200_impossible_specs_against_brute_force(values):
    rng = np.random.default_rng(0)
    rows = range(len(values["params"]))
    impossible = 0
    while impossible < 200:
        limits = random_limits(rng, values)
        if not limits:
            continue
        found = conflict_of(limits, values)
        if any(keeps(limits, values, row) for row in rows):
            assert found is None
            continue
        impossible += 1
        bounds = list(one_sided(limits))
        smallest = next(
            chosen
            for size in range(1, len(bounds) + 1)
            for chosen in itertools.combinations(bounds, size)
            if not any(keeps(chosen, values, row) for row in rows)
        )
        assert found.limits == smallest
        for move in found.moves:
            for needed, others in (
                (move.within, [one for one in smallest if one != move.limit]),
                (move.alone, [one for one in bounds if one != move.limit]),
            ):
                column = values[move.limit.objective]
                left = [column[row] for row in rows if keeps(others, values, row)]
                if not left:
                    assert needed is None
                    continue
                upper = math.isfinite(move.limit.most)
                assert needed == (min(left) if upper else max(left))


def test_two_limits_of_three_that_conflict_are_named_and_what_they_would_need(
    tmp_path, capsys
):
    path = tmp_path / "impossible.toml"
    path.write_text(
        """
family = "grouped_query_attention"
like = "llama-3-8b"
[constraints]
params = { max = "10B" }
decode = { max = "4 ms" }
loss = { max = 2.1 }
"""
    )
    assert main(["automl", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "no shape keeps decode <= 4 and loss <= 2.1 together" in line
    assert "params" not in line
    problem = Problem(make_spec(tomllib.loads(path.read_text())), AIMS)
    found = search_shapes(problem, EXHAUSTIVE, 0, 1, jax.random.key(0))
    decode, loss = found.conflict.moves
    assert decode.within > 4
    assert loss.within > 2.1
    said = re.findall(r"would have to be ([\d.,]+)", describe(found.conflict))
    for move, words in zip((decode, loss), said, strict=True):
        bound = float(words.rstrip(",").replace(",", ""))
        assert move.within <= bound <= move.within * (1 + 1e-5)


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        (Limit("params", most=8e9), 8_030_261_248.0, "8.03027e+09"),
        (Limit("params", least=9e9), 8_030_261_248.0, "8.03026e+09"),
        (Limit("params", least=9e9), 8_030_269_999.0, "8.03026e+09"),
        (Limit("decode", most=1.0), 999_999.7, "1e+06"),
        (Limit("decode", most=1.0), 1.25, "1.25"),
        (Limit("loss", most=1.0), 2.0000001, "2.00001"),
    ],
)
def test_the_bound_that_is_said_to_do_does(limit, value, said):
    """Six digits are rounded to the side on which the value keeps them."""
    conflict = Conflict((Move(limit, value, value),), 0)
    assert describe(conflict).endswith(f"it would have to be {said}")
    bound = float(said)
    assert value <= bound if math.isfinite(limit.most) else value >= bound


def test_the_best_are_no_copies_but_where_they_are_asked_for():
    problem = Problem(spec_of(), AIMS)
    every = problem.everything()
    scores = problem.scores(every)
    alike = best_rows(problem, every, scores, 8, True)
    assert scores[alike].tolist() == sorted(scores, reverse=True)[:8]
    apart = best_rows(problem, every, scores, 8, False)
    assert apart[0] == alike[0]
    assert len(set(apart.tolist())) == len(apart)
    assert (np.diff(scores[apart]) <= 0).all()
    assert scores[apart].sum() <= scores[alike].sum()


def test_a_thinned_front_stands_for_the_whole():
    problem = Problem(spec_of(), AIMS)
    found = search_shapes(problem, EXHAUSTIVE, 0, 5, jax.random.key(0))
    front = found.front
    kept = front.take(thinned_front(problem, front, problem.scores(front)))
    assert 1 < len(kept.genomes) <= len(front.genomes)
    table, own = problem.table(front), problem.table(kept)
    slack = [1.021, 1.021, 1.0101]
    for row in table:
        assert (own <= row * slack).all(axis=1).any()
    assert 0 <= found.knee < len(found.apart.genomes)


def test_a_row_says_which_limits_it_touches(values):
    problem = Problem(spec_of(), AIMS)
    every = problem.everything()
    most = float(every.values["params"][3])
    limits = (Limit("params", most=most), Limit("decode", most=1e9))
    assert touched(limits, every, 3) == ["params"]


def test_random_spends_its_budget_on_distinct_shapes():
    problem = Problem(spec_of(), AIMS)
    total = problem.shapes.total
    for budget in (1, 7, total // 2, total - 1, total, 3 * total):
        found = search_shapes(problem, "random", budget, 1, jax.random.key(0))
        assert found.evaluated == min(budget, total)
    sample = problem.shapes.sample(np.random.default_rng(0), total)
    assert np.array_equal(problem.shapes.repaired(sample), sample)
    assert len(np.unique(sample, axis=0)) == total


@pytest.mark.parametrize("strategy", ["evolution", "nsga2"])
def test_a_small_budget_still_has_generations(strategy):
    problem = Problem(spec_of(), AIMS)
    found = search_shapes(problem, strategy, 30, 1, jax.random.key(0))
    assert 10 < found.evaluated <= 30


@pytest.mark.parametrize(
    ("text", "measure", "plain"),
    [
        ("8B", "count", 8e9),
        ("1.5 t", "count", 1.5e12),
        ("12 ms", "ms", 12),
        ("0.5s", "ms", 500),
        ("24 GB", "MiB", 24e9 / 2**20),
        ("24 GiB", "MiB", 24 * 1024),
        ("312 TFLOP/s", "FLOP/s", 312e12),
        ("2,039 GB/s", "bytes/s", 2.039e12),
        ("8,030,261,248", "count", 8030261248),
        ("8_030_261_248.5", "count", 8030261248.5),
        (5, "count", 5),
    ],
)
def test_units(text, measure, plain):
    assert in_plain(text, measure) == pytest.approx(plain)


@pytest.mark.parametrize(
    "text", ["1,5 ms", "8,1 ms", "1,2345 ms", "12,34,567 ms", ",5 ms"]
)
def test_a_comma_is_no_decimal_point(text):
    with pytest.raises(ValueError, match="is no number with a unit"):
        in_plain(text, "ms")


@pytest.mark.parametrize("text", ["", "GB", "-3 ms", "3 parsecs", "1e999 ms", "3"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match=r"unit|finite"):
        in_plain(text, "ms")


def test_a_list_is_a_list():
    spec = spec_of(dimensions={"hidden_size": [768], "head_size": [64, 128]})
    assert spec.head_size == (64, 128)
    shapes = Shapes(spec)
    assert shapes.choices["num_heads"] == (6, 12)


def test_a_spec_can_start_from_a_model():
    spec = make_spec({"like": "llama-3-8b", "model": {"context": 8192}})
    assert spec.family == "grouped_query_attention"
    assert spec.dimensions["hidden_size"][0] == 2048
    assert spec.dimensions["hidden_size"][-1] == 8192
    assert spec.head_size == (128,)
    assert spec.dimensions["kv_heads"] == (8,)
    assert spec.model["vocab_size"] == 128256
    [limit] = spec.limits
    assert limit.most == pytest.approx(1.01 * 8_030_261_248)
    own = make_spec({"like": "Llama-3-8B", "dimensions": {"num_layers": [32]}})
    assert own.dimensions["num_layers"] == (32,)


def test_hardware_of_ones_own():
    given = {"peak": "100 TFLOP/s", "bandwidth": "400 GB/s", "memory": "24 GB"}
    found = spec_of(deployment={"hardware": given}).use.hardware
    assert (found.name, found.peak_flops, found.bandwidth) == ("own", 1e14, 4e11)
    assert found.memory_bytes == 24 * 10**9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"like": "llama-9"}, "like='llama-9' must be one of GPT-2, SmolLM2-135M"),
        ({"constraints": {"decode": {"max": "12 GB"}}}, "use us, ms, s"),
        (
            {"deployment": {"hardware": {"peak": "1 TFLOP/s"}}},
            "deployment.hardware lacks bandwidth",
        ),
        ({"dimensions": {"hidden_size": 2**50}}, "dimensions.hidden_size must be at"),
        (
            {"dimensions": {"hidden_size": 2**30, "num_heads": 2**23}},
            "is beyond what can be counted",
        ),
        (
            {"dimensions": {"hidden_size": {"min": 1, "max": 2**30, "step": 1}}},
            "choices, at most 4,096 can be",
        ),
        ({"training": {"tokens": 10**400}}, "training.tokens must be at most"),
    ],
)
def test_a_wrong_quantity_is_refused_in_one_line(changes, said):
    with pytest.raises(SpecError) as caught:
        Shapes(spec_of(**changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", shipped_specs())
def test_what_is_recommended_is_like_open_models_of_its_size(name):
    problem = Problem(read_spec(name), AIMS)
    found = search_shapes(problem, EXHAUSTIVE, 0, 10, jax.random.key(0))
    assert len(found.top.genomes) == 10
    for row, genome in enumerate(found.top.genomes):
        assert outside(problem, found.top, row) <= 1.5
        assert problem.shapes.config(genome).head_dim in (64, 96, 128)
    lines = reasons(problem, found.top, 0)
    assert any("open models of its size" in line for line in lines)
