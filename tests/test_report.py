import dataclasses
import io
import re

import matplotlib.image
import numpy as np
import pytest
from results import made_result
from rich.console import Console

from arch.baselines import BASELINES
from jaxnas.evaluation.fitness import FitnessSettings, scores
from jaxnas.population.plan import Bucket, Plan
from jaxnas.population.program import Program
from jaxnas.report.families import family_table
from jaxnas.report.plots import plot_fitness, plot_pareto
from jaxnas.report.progress import Progress
from jaxnas.report.quality import quality_table
from jaxnas.report.tables import (
    add_numbers,
    mebibytes,
    millions,
    plain_console,
    plain_table,
    spread_table,
    top_table,
)
from jaxnas.report.tradeoffs import tradeoff_table
from jaxnas.report.words import describe, told_apart
from jaxnas.results.ranking import top_results
from jaxnas.results.spread import saturated, score_spread
from jaxnas.results.summary import family_summary, generation_statistics
from jaxnas.storage.jsonl import Lines
from jaxnas.wording import counted, listed

CONFIG = BASELINES["gpt2-like"]
SETTINGS = FitnessSettings()


def line(identity, fitness, generation=0, status="ok", **changes):
    """A candidate as results.jsonl has it."""
    rng = np.random.default_rng(identity)
    accuracy, bits = rng.uniform(0.1, 0.9), rng.uniform(1, 5)
    size, latency = rng.uniform(50, 600), rng.uniform(1, 60)
    return made_result(
        identity,
        generation=generation,
        status=status,
        config=dataclasses.replace(CONFIG, **changes),
        stored_parameters=int(1e6 * (identity + 7)),
        size=size,
        latency=latency,
        accuracy=accuracy,
        bits_per_byte=bits,
        fitness=fitness,
    )


FAILED = line(50, None, status="failed")
LINES = [
    line(0, 0.5),
    line(1, 0.7, num_layers=9),
    line(2, 0.6),
    FAILED,
    line(12, 0.7, generation=1, quantization="int4"),
    line(11, 0.2, generation=1),
    line(13, None, generation=2, status="skipped"),
]


def bucket(program, members, **changes):
    parts = {"seconds": 7.25, "compile_seconds": 3.5, "waste": 0.28}
    return Bucket(program=program, members=members, **parts | changes)


TWICE = Program(shape=CONFIG, form="looped", lanes=2, vmapped=True)
OWN = Program(shape=dataclasses.replace(CONFIG, num_layers=9))
PLAN = Plan(
    buckets=(
        bucket(TWICE, (0, 2, 3), device=1),
        bucket(OWN, (1,), seconds=0.5, compile_seconds=0.0, waste=0.0),
    ),
    prepared=(OWN,),
    seconds=12.3456,
)


def said(renderable):
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_table_that_is_too_wide_is_read_row_by_row(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    table = plain_table("Some models", "name", "architecture")
    add_numbers(table, "parameters", "bits/byte", "milliseconds", "train MiB")
    cells = ("ultra-small", "grouped_query_attention L4 H256 heads 4 FFN 2 rmsnorm")
    table.add_row(*cells, "1,234,567,890", "2.1234", "123.45", "1,802")
    plain_console().print(table)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= columns
    words = " ".join(said.split())
    assert "ultra-small architecture grouped_query_attention L4 H256" in words
    assert "milliseconds 123.45" in words
    assert "1,234,567,890" in said  # a figure is never cut


def test_a_row_by_row_table_begins_with_the_name(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    table = plain_table("Some models")
    add_numbers(table, "rank")
    table.add_column("model")
    add_numbers(table, "parameters", "milliseconds")
    table.add_row("1", "ultra-small", "1,234,567,890", "123.45")
    plain_console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["ultra-small", "  rank 1"]


@pytest.mark.parametrize(
    ("names", "words"), [("a", "a"), ("ab", "a and b"), ("abc", "a, b and c")]
)
def test_names_are_listed_as_in_a_sentence(names, words):
    assert listed(names) == words
    assert counted(1, "step") == "1 step"
    assert counted(1000, "step") == "1,000 steps"


def test_a_table_that_fits_stays_one(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    table = plain_table("Some models", "name")
    add_numbers(table, "parameters")
    table.add_row("ultra-small", "27")
    plain_console().print(table)
    assert said(table).split() == capsys.readouterr().out.split()


def test_describe_tells_neighbours_apart():
    changes = {
        "num_layers": 9,
        "hidden_dim": 768,
        "num_heads": 4,
        "ffn_multiplier": 2.5,
        "normalization": "groupnorm",
        "activation": "silu",
        "position_encoding": "alibi",
        "quantization": "int4",
        "pruning_ratio": 0.3,
    }
    configs = [CONFIG]
    configs += [dataclasses.replace(CONFIG, **{k: v}) for k, v in changes.items()]
    words = [describe(config) for config in configs]
    assert len(set(words)) == len(configs)
    assert all("\n" not in text for text in words)
    for config, text in zip(configs, words, strict=True):
        assert text.split()[0] == config.arch_type
        for part in (f"L{config.num_layers}", f"H{config.hidden_dim}"):
            assert part in text.split()
    assert "pruned" not in words[0]
    assert "pruned 0.3" in words[-1]


def test_what_is_shared_and_what_tells_apart():
    attention = dataclasses.replace(CONFIG, activation="silu").to_dict()
    other = dataclasses.replace(CONFIG, num_layers=9).to_dict()
    mamba = BASELINES["mamba"].to_dict()
    shared, own = told_apart([attention, other])
    assert f"H{CONFIG.hidden_dim}" in shared
    assert "transformer" in shared
    assert own == [[f"L{CONFIG.num_layers}", "silu"], ["L9", "gelu"]]
    # Of Mamba's heads and positions nothing is said: it has none.
    shared, own = told_apart([attention, mamba])
    assert "absolute" in own[0]
    assert f"heads {CONFIG.num_heads}" in own[0]
    assert own[1] == ["mamba", "H512", "rmsnorm"]
    # A lone one has nothing to be told apart from.
    shared, own = told_apart([mamba])
    assert shared == []
    assert own[0][0] == "mamba"


def test_each_familys_best_is_told():
    lines = [
        *LINES,
        line(20, 0.9, arch_type="mamba"),
        line(21, 0.8, arch_type="mamba"),
        line(22, None, status="failed", arch_type="rwkv"),
    ]
    assert family_summary(lines) == {
        "transformer": {"evaluated": 7, "ok": 5, "best": 1},
        "mamba": {"evaluated": 2, "ok": 2, "best": 20},
        "rwkv": {"evaluated": 1, "ok": 0, "best": None},
    }
    rows = said(family_table(lines)).splitlines()[-3:]
    starts = [row.split()[:3] for row in rows]
    assert starts == [
        ["2", "20", "mamba"],
        ["7", "1", "transformer"],
        ["1", "-", "rwkv:"],
    ]
    for row, one in zip(rows, (lines[7], LINES[1]), strict=False):
        assert row.split()[-1] == f"{one.fitness:.4f}"
        assert row.split()[-3] == f"{one.metrics.accuracy:.4f}"


def test_spread_is_that_of_the_scores():
    spread = score_spread(LINES, SETTINGS)
    objectives = [one.objectives for one in LINES if one.status == "ok"]
    found = scores(np.asarray(objectives), SETTINGS)
    assert found.shape == (5, 3)
    for place, name in enumerate(("accuracy", "size", "latency")):
        column = found[:, place]
        assert spread[name] == {
            "least": column.min(),
            "mean": pytest.approx(column.mean()),
            "greatest": column.max(),
            "std": pytest.approx(column.std()),
        }
    assert saturated(spread) == []


@pytest.mark.parametrize("value", [1.0, 0.0, 1 / 3])
def test_a_score_that_is_the_same_for_all_is_flagged(value):
    size = SETTINGS.size_limit - value * (SETTINGS.size_limit - SETTINGS.size_target)
    lines = [line(number, 0.5) for number in range(4)]
    for one in lines:
        one.objectives[1] = size
    assert saturated(score_spread(lines, SETTINGS)) == ["size"]
    # Two that differ below the target have the same score all the same.
    for number, one in enumerate(lines):
        one.objectives[:] = [0.5, 10.0 + number, 1.0 + number]
    spread = score_spread(lines, SETTINGS)
    assert saturated(spread) == ["accuracy", "size", "latency"]
    lines[0].objectives[:] = [0.4, 10.0, 10.1]
    assert saturated(score_spread(lines, SETTINGS)) == ["size"]


def test_the_best_come_first_and_of_equals_the_older():
    assert [one.id for one in top_results(LINES, 9)] == [1, 12, 2, 0, 11]
    assert [one.id for one in top_results(LINES[::-1], 3)] == [1, 12, 2]
    assert top_results([FAILED], 3) == []


def test_statistics_of_a_generation():
    for generation, ids in ((0, [0, 1, 2]), (1, [12, 11])):
        values = np.array([one.fitness for one in LINES if one.id in ids])
        assert generation_statistics(LINES, generation) == {
            "generation": generation,
            "new": len(ids),
            "best": values.max(),
            "mean": pytest.approx(values.mean()),
            "std": pytest.approx(values.std()),
        }
    for generation in (2, 3):  # all were skipped, none was new
        found = generation_statistics(LINES, generation)
        assert found == {"generation": generation, "new": 0}


def test_the_top_table_holds_the_figures():
    text = said(top_table(LINES, 3))
    rows = [row for row in text.splitlines() if re.match(r"\s*\d+ +\d+ ", row)]
    assert len(rows) == 3
    assert "Top 3" in text
    for rank, (row, one) in enumerate(zip(rows, top_results(LINES, 3), strict=True), 1):
        for figure in (
            str(rank),
            str(one.id),
            millions(one.costs.stored_parameters),
            f"{one.costs.size_mib:.1f}",
            f"{one.costs.latency_ms:.2f}",
            f"{one.metrics.accuracy:.4f}",
            f"{one.metrics.bits_per_byte:.3f}",
            f"{one.fitness:.4f}",
        ):
            assert figure in row.split()
    for words in ("L9", "int4", CONFIG.arch_type, f"H{CONFIG.hidden_dim}"):
        assert words in text
    assert "Top 5" in said(top_table(LINES, 99))  # two of the seven have no score


def test_the_spread_table_holds_the_figures():
    spread = score_spread(LINES, SETTINGS)
    text = said(spread_table(spread, "Scores"))
    for name, row in spread.items():
        (found,) = (x for x in text.splitlines() if x.split()[:1] == [name])
        order = ("least", "mean", "greatest", "std")
        assert found.split()[1:] == [f"{row[key]:.4f}" for key in order]


def test_the_quality_table_holds_the_figures():
    rng = np.random.default_rng(0)
    splits = {
        split: {
            model: {"bits_per_byte": rng.uniform(1, 5), "accuracy": rng.uniform()}
            for model in ("winner", "unigram", "bigram")
        }
        | {"windows": 9}
        for split in ("validation", "test")
    }
    text = said(quality_table({"splits": splits}))
    for split, models in splits.items():
        for model in ("winner", "unigram", "bigram"):
            figures = models[model]
            (row,) = (
                row
                for row in text.splitlines()
                if f"{figures['bits_per_byte']:.3f}" in row.split()
                and f"{figures['accuracy']:.4f}" in row.split()
            )
            assert model in row
            assert split in text


def test_millions():
    assert millions(49_021_824) == "49.0M"
    assert millions(0) == "0.00M"
    assert millions(1_960_000) == "1.96M"
    assert [mebibytes(size) for size in (0.567, 9.99, 12.34)] == [
        "0.57",
        "9.99",
        "12.3",
    ]


@pytest.mark.parametrize("plot", [plot_fitness, plot_pareto])
def test_a_plot_is_a_png_of_its_data(tmp_path, plot):
    def drawn(lines):
        path = tmp_path / "plot.png"
        plot(path, lines)
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        return matplotlib.image.imread(path)

    first, again = drawn(LINES), drawn(LINES)
    assert min(first.shape[:2]) > 300
    np.testing.assert_array_equal(first, again)
    # Who failed is not drawn.
    without = [one for one in LINES if one.status == "ok"]
    np.testing.assert_array_equal(drawn(without), first)
    changes = {"fitness": 0.65, "objectives": [0.99, 30.0, 50.0]}
    other = drawn([dataclasses.replace(without[0], **changes), *without[1:]])
    assert other.shape != first.shape or np.any(other != first)
    assert np.unique(first.reshape(-1, first.shape[-1]), axis=0).shape[0] > 10


def test_progress_says_each_candidate_and_generation(tmp_path):
    console = Console(file=io.StringIO(), width=300)
    timings = Lines(tmp_path / "timings")
    with Progress(console, 10, timings) as progress:
        progress.begin_generation(0)
        for one in LINES[:4]:
            progress.steps("training")(5, 5, 1.25)
            progress.candidate(one)
        progress.plan_has_run(PLAN, 2.0)
        progress.end_generation(0, LINES[:4])
        progress.end_generation(2, LINES)
        progress.end_generation(3, LINES)
        with progress.stage("finish"):
            pass
    timings.close()
    text = console.file.getvalue()
    for one in LINES[:3]:
        assert describe(one.config) in text
        assert f"{one.metrics.accuracy:.4f}" in text
        assert f"fitness {one.fitness:.4f}" in text
    assert "failed: TrainingFailed: nan" in text
    assert "generation 1: best fitness 0.7000, mean 0.6000 +- 0.0816 over 3 new" in text
    assert "generation 3: best fitness 0.7000, none of the 1 new succeeded" in text
    assert "generation 4: best fitness 0.7000, nothing new: every candidate" in text
    # 4 trainings took 2 seconds, 6 candidates of 10 are left.
    assert "over 3 new; at most 0:03 of search left" in text
    ran, finish = timings
    assert ran == {"buckets": 2, "predicted": 12.346, "seconds": 2.0}
    assert finish["stage"] == "finish"
    assert finish["seconds"] >= 0


def test_a_plan_is_shown_to_those_who_ask(tmp_path):
    texts, timings = [], Lines(tmp_path / "timings")
    for verbose in (False, True):
        console = Console(file=io.StringIO(), width=200)
        with Progress(console, 4, timings) as progress:
            progress.planned(PLAN, verbose)
        texts.append(console.file.getvalue())
    timings.close()
    assert texts[0] == ""
    assert "2 buckets, 1 programs to compile and 1 for later; 12.3 s" in texts[1]
    twice, own = texts[1].splitlines()[-2:]
    assert re.split(r"  +", twice.strip())[-5:] == ["3", "1", "28%", "3.5", "7.2"]
    assert re.split(r"  +", own.strip())[-5:] == ["1", "0", "0%", "has it", "0.5"]
    for word in ("transformer", f"H{CONFIG.hidden_dim}", "looped", "x 2 lanes"):
        assert word in twice
    assert "L9" in own
    assert "exact" in own


def test_what_the_limits_buy_is_a_front_of_size_and_latency_alone():
    """A model that is better by an objective of the user's alone buys nothing."""
    good = made_result(0, objectives=[0.5, 1.0, 1.0, 9.0], accuracy=0.5)
    worse = made_result(1, objectives=[0.6, 2.0, 2.0, 0.0], accuracy=0.4, size=2.0)
    small = made_result(2, objectives=[0.7, 0.5, 2.0, 9.0], accuracy=0.3, size=0.5)
    table = tradeoff_table([good, worse, small], 8.0, 4.0)
    assert [*table.columns[0].cells] == ["0", "2"]
