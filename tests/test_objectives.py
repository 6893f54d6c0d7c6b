"""A user's own objectives, and searches that end after so many candidates."""

import dataclasses
import io
import itertools
import json
import math
import re
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from corpus import write_corpus
from rich.console import Console
from searching import GENES, assert_valid, draw_many, jitted
from tasks import TINY, evaluator_with, noise_task

import jaxnas
from arch import cost
from arch.spaces import SPACES
from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.evaluation.costs import costs_of
from jaxnas.evaluation.fitness import OBJECTIVES, FitnessSettings, fitness_of
from jaxnas.evaluation.training_log import Training, TrainingLog
from jaxnas.evaluation.user_objectives import (
    Extra,
    Objective,
    changed_since,
    load_objectives,
    sources_of,
)
from jaxnas.pipeline.limits import costs_of_space
from jaxnas.pipeline.search import Search, most_candidates
from jaxnas.population.call import Outcome
from jaxnas.population.lanes import Running
from jaxnas.population.observer import Observer
from jaxnas.population.program import Program
from jaxnas.report.plots import plot_pareto
from jaxnas.report.progress import Progress
from jaxnas.report.tables import top_table
from jaxnas.results.ranking import front_of
from jaxnas.results.result import ResultLog
from jaxnas.run import main
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.jsonl import Lines
from jaxnas.training.keys import training_key
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.rungs import rungs_of
from jaxnas.training.scoring import Compression, Metrics
from jaxnas.training.settings import TrainSettings
from search import STRATEGIES

DOCS = Path(__file__).parent.parent / "docs" / "fitness.md"
[ENERGY] = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)

OTHERS = """
def heads(config, params, results):
    return -config.num_heads

def breaks(config, params, results):
    if config.quantization == "int8":
        raise RuntimeError("no meter at 0x7f00\\nand more")
    return math.nan

import math
constant = 3
accuracy = heads
made = type("Made", (), {"__call__": lambda self, *_: 1})()
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder on the path with modules to import from."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "energy_module.py").write_text(ENERGY)
    (folder / "other_module.py").write_text(OTHERS)
    (folder / "broken_module.py").write_text("1 / 0")
    (folder / "leaving_module.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.endswith("_module")]:
        del sys.modules[name]


# ---- by import path ----


def test_the_example_is_ten_lines_and_found(modules):
    assert len(ENERGY.splitlines()) <= 10
    [energy] = load_objectives("energy_module:energy")
    assert energy.name == "energy"
    assert load_objectives(None) == load_objectives("") == ()
    both = load_objectives("other_module:heads, energy_module:energy")
    assert [one.name for one in both] == ["heads", "energy"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("energy", "'energy' is not of the form module:function"),
        ("energy_module.py:energy()", "is not of the form module:function"),
        (":energy", "':energy' is not of the form"),
        ("energy_module:", "'energy_module:' is not of the form"),
        ("energy_module:energy,", "'' is not of the form"),
        ("nowhere_module:energy", "cannot import 'nowhere_module': ModuleNotFoundErr"),
        ("broken_module:f", "cannot import 'broken_module': ZeroDivisionError: div"),
        ("leaving_module:f", "cannot import 'leaving_module': SystemExit: 3"),
        ("energy_module:power", "module 'energy_module' has no function 'power'"),
        ("other_module:constant", "'other_module:constant' is no function but 3"),
        ("other_module:accuracy", "another name: 'accuracy' is ours"),
        ("other_module:heads,other_module:heads", "'heads' is named twice"),
    ],
)
@pytest.mark.usefixtures("modules")
def test_a_path_that_cannot_be_used_is_one_line(text, said):
    with pytest.raises(UsageError, match=f"^objectives: .*{re.escape(said)}") as raised:
        load_objectives(text)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("modules")
def test_it_is_found_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "before").mkdir()
    other = RunConfig(objectives="energy_module:energy").to_toml()
    (tmp_path / "before" / "config.toml").write_text(other)
    for flags, said in (
        (["--objectives", "energy_module:power"], "has no function 'power'"),
        (
            ["--warm-start", "before"],
            "has objectives='energy_module:energy', this one None",
        ),
    ):
        assert main(["--out", "run", "--data", "nowhere", *flags]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (-0.5, -0.5),
        (np.float32(0.25), 0.25),
        (jnp.float32(2), 2.0),
        (math.nan, None),
        (-math.inf, None),
        (1e16, None),
        (None, None),
        ("3", None),
        ([1, 2], None),
        (10**400, None),
    ],
    ids=lambda x: str(x)[:9],
)
def test_what_counts_as_a_number(value, number):
    objective = Objective("module:name", lambda *_: value)
    if number is not None:
        found = objective(TINY, {}, None)
        assert (type(found), found) == (float, number)
    else:
        with pytest.raises(ValueError, match="no finite number"):
            objective(TINY, {}, None)


def test_a_changed_source_is_noticed(modules, tmp_path):
    paths = "energy_module:energy,other_module:made"
    before = sources_of(load_objectives(paths))
    assert len(set(before.values()) - {None}) == 2
    manifest = tmp_path / "manifest.json"
    assert changed_since(manifest, before) == []
    manifest.write_text(json.dumps({"objectives": before}))
    assert changed_since(manifest, sources_of(load_objectives(paths))) == []
    (modules / "energy_module.py").write_text(ENERGY + "# another\n")
    now = sources_of(load_objectives(paths))
    assert changed_since(manifest, now) == ["energy_module:energy"]


# ---- in an evaluation ----

HARDWARE = cost.HARDWARE["cpu-core"]
SETTINGS = TrainSettings(window=12, batch=4, learning_rate=1e-2, steps_per_call=5)
COMPRESSIONS = [Compression("fp16", 0.0), Compression("int8", 0.5)]
ALIKE = ("transformer", "flash_attention")


def evaluator_of(**changes):
    parts = {
        "task": noise_task(SETTINGS),
        "rungs": rungs_of({"fast": PhaseLength(samples=20, epochs=1)}, SETTINGS),
        "hardware": HARDWARE,
        "fitness": FitnessSettings(size_target=0.01, size_limit=1.0),
        "max_size": 500.0,
        "eval_windows": 9,
        "compressions": COMPRESSIONS,
    }
    return evaluator_with(**parts | changes)


def measured(extra, config, metrics, on_failed=lambda *_: None):
    """The training of a config that left no weights, as a run records it."""
    outcome = Outcome(
        key="0", program=Program(shape=config), params={}, metrics=metrics
    )
    costs = lambda config: costs_of(config, HARDWARE)
    training = Training(key=training_key(config), metrics=metrics)
    return extra.measured(training, [config], outcome, costs, on_failed)


def variant(arch_type, compression):
    return dataclasses.replace(TINY, arch_type=arch_type, **compression._asdict())


def test_one_training_answers_for_all_that_share_it(tmp_path, monkeypatch):
    """From the file too: without the weights, and to the bit."""
    asked = []

    def norm(config, params, results):
        leaves = jax.tree.leaves(params)
        asked.append(
            (config.arch_type, *map(config.to_dict().get, Compression._fields))
        )
        assert sum(leaf.size for leaf in leaves) == results.costs.parameters
        assert all(type(leaf) is np.ndarray for leaf in leaves)
        with pytest.raises(ValueError, match="read-only"):
            leaves[0][...] = 0
        assert isinstance(results.metrics, Metrics)
        squares = sum(float((leaf.astype(float) ** 2).sum()) for leaf in leaves)
        return squares + results.costs.size_mib / 7 + results.metrics.loss

    extra = Extra(objectives=(Objective("here:norm", norm),), families=ALIKE)
    lines = Lines(tmp_path / "trainings.jsonl")
    told = {}
    evaluator = evaluator_of(
        extra=extra,
        trainings=TrainingLog(lines),
        observer=Observer(
            trained=lambda config, params, found, phase: told.update({config: found})
        ),
    )
    configs = [variant(*pair) for pair in itertools.product(ALIKE, COMPRESSIONS)]
    first = evaluator(configs[0])
    wanted = [(name, *one) for name, one in itertools.product(ALIKE, COMPRESSIONS)]
    assert sorted(asked) == sorted(wanted)
    assert told == {configs[0]: first.fitness}
    size, latency = first.costs.size_mib, first.costs.latency_ms
    assert first.objectives[:3] == [1 - first.metrics.accuracy, size, latency]
    assert first.fitness == fitness_of(first.objectives[:3], evaluator.fitness)
    monkeypatch.setattr(Running, "__init__", lambda *_: pytest.fail("trained again"))
    found = [evaluator(config) for config in configs]
    values = [one.objectives[3] for one in found]
    assert len(set(values[:2])) == len(set(values[2:])) == 2
    lines.close()
    kept = Lines(lines.path)
    kept.close()
    again = evaluator_of(extra=extra, trainings=TrainingLog(kept))
    assert [again(config) for config in configs] == found
    assert len(asked) == len(configs)


@pytest.mark.usefixtures("modules")
def test_an_objective_that_fails_is_a_result(tmp_path):
    failures = []
    extra = Extra(objectives=load_objectives("other_module:breaks"))
    metrics = Metrics(accuracy=0.1, loss=2.0, perplexity=7.4, bits_per_byte=2.9)
    scored = dict.fromkeys([*COMPRESSIONS, Compression("fp16", 0.5)], metrics)
    told = lambda *failure: failures.append(failure)
    training = measured(extra, TINY, scored, told)
    lines = Lines(tmp_path / "trainings.jsonl")
    TrainingLog(lines).add(training)
    lines.close()
    kept = Lines(lines.path)
    kept.close()
    evaluator = evaluator_of(extra=extra, trainings=TrainingLog(kept))
    reasons = (
        "ValueError: it returned nan, no finite number up to 1e+15",
        "RuntimeError: no meter at 0x...",
    )
    for compression, reason in zip(COMPRESSIONS, reasons, strict=True):
        found = evaluator(variant("transformer", compression))
        assert found.status == "failed"
        assert found.reason == f"objective other_module:breaks: {reason}"
        assert (found.metrics, found.objectives, found.fitness) == (None, None, None)
    traces = [trace for _, trace in failures]  # once each
    assert len(traces) == 2
    assert "no meter at 0x7f00\nand more" in traces[1]


def test_it_sees_the_weights_that_were_scored():
    """Pruned ones may have trained on."""
    extra = Extra(objectives=(Objective("here:sum", lambda c, p, r: p["x"].sum()),))
    metrics = Metrics(accuracy=0.1, loss=2.0, perplexity=7.4, bits_per_byte=2.9)
    outcome = Outcome(
        key="0",
        program=Program(shape=TINY),
        params={"x": np.ones(2)},
        pruned={0.5: {"x": np.ones(3)}},
        metrics=dict.fromkeys(COMPRESSIONS, metrics),
    )
    training = Training(key=training_key(TINY, "@full"), metrics=outcome.metrics)
    costs = lambda config: costs_of(config, HARDWARE)
    training = extra.measured(training, [TINY], outcome, costs, print)
    for compression, value in zip(COMPRESSIONS, (2.0, 3.0), strict=True):
        assert extra.found(variant(TINY.arch_type, compression), training) == [value]


def test_who_has_no_value_yet_is_scored_again_beside_who_has_no_score():
    """Both of one training: trained once, before there was the objective."""
    one, other = (variant(TINY.arch_type, compression) for compression in COMPRESSIONS)
    trainings = TrainingLog()
    evaluator_of(compressions=(), trainings=trainings)(one)
    extra = Extra(objectives=(Objective("here:one", lambda c, p, r: 1.0),))
    evaluator = evaluator_of(compressions=(), trainings=trainings, extra=extra)
    found = evaluator.evaluate([one, other]).values()
    assert [each.objectives[3] for each in found] == [1.0, 1.0]


# ---- in a search, with trainings that were done before ----

SPACE = SPACES["minimal"]
FIELDS = {"vocab_size": 257, "max_seq_length": 12}
POPULATION = 3


def known_trainings(extra):
    """Of the whole space, as a run would have recorded them."""
    trainings = TrainingLog()
    for genome in itertools.product(*map(range, SPACE.cardinality.tolist())):
        config = SPACE.decode(genome, **FIELDS)
        share = (config.num_layers * config.hidden_dim % 7) / 10
        metrics = Metrics(accuracy=share, loss=2.0, perplexity=7.4, bits_per_byte=2.9)
        trainings.add(measured(extra, config, {Compression("fp16", 0.0): metrics}))
    return trainings


def searched(folder, extra, strategy="random", earlier=None, **changes):
    """The lines of a search, gone on with if the folder holds one."""
    config = RunConfig(
        space=SPACE.name,
        strategy=strategy,
        population=POPULATION,
        generations=3,
        checkpoint_every=2,
        warm_start=earlier and str(earlier),
        **changes,
    )
    settings = config.resolve("cpu")
    evaluator = evaluator_of(
        extra=extra, trainings=known_trainings(extra), compressions=()
    )
    table = costs_of_space(settings, evaluator.hardware, FIELDS)
    folder.mkdir(exist_ok=True)
    console = Console(file=io.StringIO())
    with (
        ResultLog(folder / "results.jsonl") as results,
        Lines(folder / "timings.jsonl") as timings,
        Progress(console, most_candidates(settings, table), timings) as progress,
    ):
        Search(
            settings=settings,
            evaluator=evaluator,
            table=table,
            results=results,
            checkpoints=Checkpoints(folder / "checkpoints", keep=3),
            progress=progress,
        ).run()
        return list(results)


@pytest.mark.usefixtures("modules")
def test_a_search_ends_after_max_evals_and_goes_on_to_more(tmp_path):
    extra = Extra(objectives=load_objectives("energy_module:energy"))
    whole = searched(tmp_path / "whole", extra)
    assert len(whole) == SPACE.distinct_count == 8
    assert {len(line.objectives) for line in whole} == {4}
    content = (tmp_path / "whole" / "results.jsonl").read_bytes()
    for most in (2, 3, 5, 5):  # within a generation, at its end; once more; higher
        part = searched(tmp_path / "part", extra, max_evals=most)
        assert part == whole[:most]
    searched(tmp_path / "part", extra)
    assert (tmp_path / "part" / "results.jsonl").read_bytes() == content


def test_the_front_takes_in_the_users_objective(modules, tmp_path):
    """By brute force; a candidate without heads to spare stays for that alone."""
    extra = Extra(objectives=load_objectives("other_module:heads"))
    lines = searched(tmp_path / "run", extra)
    wanted = {
        number: [
            one.id
            for one in lines
            if not any(
                dominated(other.objectives[:number], one.objectives[:number])
                for other in lines
            )
        ]
        for number in (3, 4)
    }
    assert front_of(lines) == wanted[4]
    assert set(wanted[4]) > set(wanted[3])


def dominated(by, one):
    pairs = list(zip(by, one, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def test_a_failing_objective_does_not_stop_the_search(tmp_path):
    """Four layers fail: told as NaN of four objectives, ranked last."""

    def deep(config, params, results):
        return config.num_layers if config.num_layers > 4 else math.inf

    extra = Extra(objectives=(Objective("here:deep", deep),))
    lines = searched(tmp_path / "run", extra, "local")
    status = {line.config.num_layers: line.status for line in lines}
    assert status == {4: "failed", 6: "ok"}
    assert all("here:deep" in line.reason for line in lines if line.reason)


@pytest.mark.usefixtures("modules")
def test_a_warm_start_with_other_objectives_is_refused(tmp_path):
    energy = Extra(objectives=load_objectives("energy_module:energy"))
    searched(tmp_path / "earlier", Extra())
    earlier = tmp_path / "earlier"
    with pytest.raises(UsageError, match="has 3 objectives, this one 4"):
        searched(tmp_path / "later", energy, "nsga2", earlier=earlier)


@pytest.mark.parametrize("name", ["nsga2", "aging", "local", "predictor"])
@pytest.mark.sweep(2)
def test_strategies_minimise_what_only_the_fourth_tells_apart(name, key):
    """Of genomes alike in three objectives they keep the best first."""
    draw, begin, after = jax.random.split(key, 3)
    genomes = np.asarray(draw_many(jax.random.split(draw, 16)))
    objectives = np.ones((16, 4), np.float32)
    objectives[:, 3] = np.arange(16)
    parts = {"objectives": 4, "population": 8}
    strategy = jitted(STRATEGIES[name](GENES, **parts))
    rows = np.arange(16, dtype=np.int32), genomes, objectives, np.ones(16, bool)
    state = strategy.tell(strategy.init(begin), *rows)
    kept = state if hasattr(state, "objectives") else state[0]
    assert kept.objectives[0].tolist() == [1, 1, 1, 0]
    np.testing.assert_array_equal(kept.genomes[0], genomes[0])
    if name == "predictor":  # the others ask by rank alone
        assert_valid(strategy.ask(after, state))


# ---- reports, and a whole run ----


def test_tables_and_plots_hold_them_by_name(modules, tmp_path):
    extra = Extra(objectives=load_objectives("energy_module:energy"))
    lines = searched(tmp_path / "run", extra)
    console = Console(file=io.StringIO(), width=200)
    console.print(top_table(lines, 1, extra.names))
    said = console.file.getvalue()
    best = max(lines, key=lambda line: line.fitness)
    assert said.splitlines()[1].split()[-1] == "energy"
    assert said.split()[-1] == f"{best.objectives[3]:.4g}"
    for names in ((), extra.names):
        known = [
            dataclasses.replace(line, objectives=line.objectives[: 3 + len(names)])
            for line in lines
        ]
        plot_pareto(tmp_path / f"{len(names)}.png", known, names)
    heights = [matplotlib.image.imread(tmp_path / f"{n}.png").shape[0] for n in (0, 1)]
    assert heights[1] == 2 * heights[0]


@pytest.mark.slow
def test_a_run_with_an_objective_from_the_command_line(modules, tmp_path, monkeypatch):
    """In both phases; from the file of trainings alone it finds the same again."""
    write_corpus(tmp_path / "code")
    monkeypatch.chdir(tmp_path)
    settings = [
        *("--out", "run", "--objectives", "energy_module:energy"),
        *("--population", 4, "--generations", 2, "--max-evals", 5),
        *("--phases", "8,24", "--decay-share", 0.5, "--lucky", 0),
        *("--window", 16, "--batch", 4, "--vocab-size", 300),
        *("--eval-windows", 8, "--final-windows", 8, "--final-steps", 0),
        *("--measure-top", 0, "--data", "folder:code", "--strategy", "nsga2"),
        "--no-baseline",
    ]
    assert main(list(map(str, settings))) == 0
    run = tmp_path / "run"
    before = {
        name: (run / name).read_bytes()
        for name in ("results.jsonl", "rungs.jsonl", "best.json")
    }
    lines = [json.loads(line) for line in before["results.jsonl"].splitlines()]
    assert len(lines) == 5
    found = json.loads((run / "summary.json").read_text())["search"]
    assert list(found["objectives"]) == [*OBJECTIVES, "energy"]
    assert found["front"] == [
        one["id"]
        for one in lines
        if not any(dominated(other["objectives"], one["objectives"]) for other in lines)
    ]
    later = [json.loads(line) for line in before["rungs.jsonl"].splitlines()]
    assert 2 <= len(later) < 5
    for line in [*lines, *later]:
        flops = line["costs"]["forward_flops"]
        assert line["objectives"][3] == pytest.approx(flops * 1e-8, rel=1e-12)
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints")
    again = ["--resume", "run", "--objectives"]
    assert main([*again, "energy_module:energy"]) == 0
    assert {name: (run / name).read_bytes() for name in before} == before
    (run / "summary.json").unlink()
    config = (run / "config.toml").read_text()
    other = config.replace("energy_module:energy", "other_module:heads")
    (run / "config.toml").write_text(other)
    assert main([*again, "other_module:heads"]) == 2


@pytest.mark.usefixtures("modules")
def test_code_that_a_file_alone_names_is_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.py").write_text("raise SystemExit('it ran')")
    text = RunConfig(objectives="hostile:run").to_toml()
    for folder in ("sent", "run"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.toml").write_text(text)
    said = "names code to run, objectives='hostile:run': it runs if --objectives "
    for given in (
        ["--config", "sent/config.toml", "--out", "new"],
        ["--resume", "run"],
        ["--resume", "run", "--objectives", "energy_module:energy"],
    ):
        assert main(given) == 2
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1
    with pytest.raises(UsageError, match="names code to run"):
        jaxnas.resume("run")
    assert not (tmp_path / "new").exists()
    # Other objectives than the file's are the user's own.
    given = ["--config", "sent/config.toml", "--objectives", "energy_module:none"]
    assert main([*given, "--out", "new"]) == 2
    assert "has no function 'none'" in capsys.readouterr().err
