"""A search ends early where it has what it looked for, and a resume agrees."""

import io
import math
import shutil

import jax
import numpy as np
import pytest
from results import made_result
from rich.console import Console
from tasks import evaluator_with, noise_task

from jaxnas.config import RunConfig
from jaxnas.errors import UsageError
from jaxnas.evaluation.training_log import Training, TrainingLog
from jaxnas.hardware import hardware_named
from jaxnas.pipeline.build import make_fitness
from jaxnas.pipeline.limits import costs_of_space
from jaxnas.pipeline.search import Search
from jaxnas.pipeline.watcher import Watcher
from jaxnas.report.progress import Progress
from jaxnas.results.ending import generations_of, reached, stale, why_ended
from jaxnas.results.result import ResultLog, read_results
from jaxnas.spaces import parse_space
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.jsonl import Lines
from jaxnas.targets import METRICS, Target, targets_of
from jaxnas.training.keys import training_key
from jaxnas.training.rungs import rungs_of
from jaxnas.training.scoring import Compression, Metrics
from jaxnas.training.settings import TrainSettings
from search.pareto.hypervolume import hypervolume

# ---- targets ----


def test_a_target_is_read_and_met_on_its_side():
    assert targets_of("accuracy=0.3") == (Target("accuracy", 0.3),)
    both = targets_of(" bits_per_byte = 2 ,fitness=-1e-3")
    assert both == (Target("bits_per_byte", 2.0), Target("fitness", -1e-3))
    for metric, (higher, *_) in METRICS.items():
        target = Target(metric, 1.0)
        assert target.met(1.0)
        assert target.met(1.5) == higher
        assert target.met(0.5) != higher
        assert not target.met(math.nan)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no target: write METRIC=X, of accuracy, fitness .at least., bits"),
        ("accuracy", "'accuracy' is no target"),
        ("acc=0.3", "'acc=0.3' is no target"),
        ("accuracy=0.3,", "'' is no target"),
        ("accuracy=0.3,accuracy=0.4", "accuracy is named twice"),
        ("accuracy=high", "accuracy=high needs a number of at least 0, at most 1"),
        ("accuracy=30", "accuracy=30 needs a number of at least 0, at most 1"),
        ("loss=nan", "loss=nan needs a number of at least 0$"),
        ("perplexity=0.5", "perplexity=0.5 needs a number of at least 1$"),
        ("fitness=inf", "fitness=inf needs a number$"),
    ],
)
def test_what_is_no_target(text, said):
    with pytest.raises(ValueError, match=said):
        targets_of(text)
    with pytest.raises(UsageError, match=r"^target="):
        RunConfig(target=text)


def test_one_candidate_has_to_reach_all_targets():
    results = [
        made_result(0, status="failed"),
        made_result(1, accuracy=0.4, bits_per_byte=3.0),
        made_result(2, accuracy=0.2, bits_per_byte=1.0),
        made_result(3, accuracy=0.3, bits_per_byte=2.0),
        made_result(4, accuracy=0.9, bits_per_byte=0.1),
    ]
    targets = targets_of("accuracy=0.3,bits_per_byte=2")
    assert reached(results, targets).id == 3
    assert reached(results[:3], targets) is None
    assert reached(results, ()) is None
    assert reached(results, targets_of("fitness=0.3")).id == 1  # made of accuracy


# ---- patience ----


MOST = 40  # candidates of twelve generations
VOLUME = jax.jit(hypervolume)


def random_generations(rng, objectives=2):
    """Few distinct values, failures, and generations without new candidates."""
    generations, identity = [], 0
    for number in range(12):
        found = []
        for _ in range(rng.integers(4)):
            values = rng.integers(1, 6, objectives).astype(float).tolist()
            found.append(
                made_result(
                    identity,
                    generation=number,
                    status="ok" if rng.random() < 0.8 else "failed",
                    objectives=values,
                    fitness=-float(sum(values)) if rng.random() < 0.5 else -20.0,
                )
            )
            identity += 1
        generations.append(found)
    return generations


def progress_by_hypervolume(generations, front):
    """Generations since the last progress, by the definition."""
    best, volume, since = -math.inf, 0.0, 0
    for number in range(len(generations)):
        every = [
            one
            for each in generations[: number + 1]
            for one in each
            if one.status == "ok"
        ]
        now, area = best, volume
        if every:
            now = max(one.fitness for one in every)
            objectives = len(every[0].objectives)
            rows = np.full((MOST, objectives), np.nan, np.float32)
            rows[: len(every)] = [one.objectives for one in every]
            area = float(VOLUME(rows, np.full(objectives, 10.0, np.float32)))
        since = 0 if now > best or (front and area > volume) else since + 1
        best, volume = now, area
    return since


@pytest.mark.parametrize("front", [False, True])
def test_progress_is_a_better_winner_or_a_larger_hypervolume(front):
    rng = np.random.default_rng(0)
    for objectives in (2, 3):
        for _ in range(10):
            generations = random_generations(rng, objectives)
            for number in (1, 5, 12):
                some = generations[:number]
                assert stale(some, front) == progress_by_hypervolume(some, front)
    assert stale([], front) == 0
    assert stale([[], []], front) == 2


def test_a_generation_without_new_candidates_counts():
    results = [made_result(n, generation=n, accuracy=a) for n, a in enumerate((3, 4))]
    assert [len(each) for each in generations_of(results, 4)] == [1, 1, 0, 0]
    assert [len(each) for each in generations_of(results, 1)] == [1]
    why = {
        number: why_ended(
            generations_of(results, number), patience=2, targets=(), front=False
        )
        for number in range(5)
    }
    assert [number for number, text in why.items() if text] == [4]
    assert why[4] == "2 in a row without a better winner"


# ---- in a search, with trainings that were done before ----

SPACE = """
[genes]
num_layers = [1, 2, 3, 4]
hidden_dim = [32, 64, 96, 128]
num_heads = [2, 4]
"""
FIELDS = {"vocab_size": 257, "max_seq_length": 8}


def accuracy_of(config):
    return (config.num_layers * config.hidden_dim * config.num_heads % 37) / 100


def known_trainings(space):
    trainings = TrainingLog()
    for index in range(space.total):
        config = space.decode(space.genome_at(index), **FIELDS)
        metrics = Metrics(
            accuracy=accuracy_of(config), loss=2.0, perplexity=7.4, bits_per_byte=2.9
        )
        key = training_key(config)
        trainings.add(Training(key=key, metrics={Compression("fp16", 0.0): metrics}))
    return trainings


POPULATION = 4


def searched(folder, *, on_candidate=None, **changes):
    """The results of a search, gone on with if the folder holds one; why it ended."""
    settings = RunConfig(
        space="minimal",  # of which only the defaults are read
        strategy="random",
        population=POPULATION,
        generations=6,
        checkpoint_every=2,
        samples=4,
        window=8,
        batch=2,
        vocab_size=257,
        **changes,
    ).resolve("cpu")
    space = parse_space(SPACE, "own.toml", "own")
    task = noise_task(TrainSettings(window=8, batch=2, learning_rate=0.01))
    hardware = hardware_named("cpu-core")
    table = costs_of_space(settings, hardware, FIELDS, space)
    evaluator = evaluator_with(
        task=task,
        rungs=rungs_of(settings.named_phases(), task.settings),
        eval_windows=2,
        hardware=hardware,
        fitness=make_fitness(settings),
        trainings=known_trainings(space),
    )
    folder.mkdir(exist_ok=True)
    watcher = Watcher(on_candidate, folder / "stopped.json")
    with (
        ResultLog(folder / "results.jsonl", watcher.show) as results,
        Lines(folder / "timings.jsonl") as timings,
        Progress(Console(file=io.StringIO()), 99, timings) as progress,
    ):
        search = Search(
            settings=settings,
            evaluator=evaluator,
            table=table,
            results=results,
            checkpoints=Checkpoints(folder / "checkpoints", keep=9),
            progress=progress,
            watcher=watcher,
        )
        why = search.run()
        return list(results), why


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All generations of a search, and its folder."""
    folder = tmp_path_factory.mktemp("ending") / "whole"
    results, why = searched(folder)
    assert why is None
    assert results[-1].generation == 5
    return results


def bytes_of(folder):
    return (folder / "results.jsonl").read_bytes()


def assert_ends_there(folder, again, **given):
    """A resume from any checkpoint, and from none, ends with the same bytes."""
    content = bytes_of(folder)
    saved = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    found = again(folder, **given)
    assert bytes_of(folder) == content
    for number in reversed(saved):  # as if killed before this one was written
        shutil.rmtree(folder / "checkpoints" / str(number))
        assert again(folder, **given) == found
        assert bytes_of(folder) == content
        for later in (folder / "checkpoints").iterdir():
            if int(later.name) >= number:
                shutil.rmtree(later)


def test_patience_ends_a_search_and_its_resumes_at_the_same_place(whole, tmp_path):
    ended = []
    for patience in (1, 2):
        for weights in ({}, {"size_weight": 0.0, "latency_weight": 0.0}):
            folder = tmp_path / f"{patience}{len(weights)}"
            given = {"patience": patience, **weights}
            results, why = searched(folder, **given)
            done = results[-1].generation + 1
            front = not weights
            assert [one.genome for one in results] == [
                one.genome for one in whole if one.generation < done
            ]
            stops = [
                number
                for number in range(7)
                if stale(generations_of(results, number), front) >= patience
            ]
            assert (why is None) == (not stops[:1] or stops[0] >= 6)
            assert done <= (stops[0] if stops else 6)
            ended.append((done, why))
            assert_ends_there(folder, searched, **given)
    assert any(why is not None for _, why in ended)


def test_a_target_ends_a_search_after_the_generation_that_reaches_it(whole, tmp_path):
    best = sorted(one.metrics.accuracy for one in whole)
    for place in (-1, len(best) // 2):
        bound = best[place]
        folder = tmp_path / str(place)
        results, why = searched(folder, target=f"accuracy={bound!r}")
        first = next(one for one in whole if one.metrics.accuracy >= bound)
        wanted = [one for one in whole if one.generation <= first.generation]
        assert results == wanted
        if first.generation < 5:
            assert why == f"candidate {first.id} reaches accuracy={bound:g}"
        assert_ends_there(folder, searched, target=f"accuracy={bound!r}")
    results, why = searched(tmp_path / "never", target="accuracy=1")
    assert (results, why) == (whole, None)


# ---- a callback ----


def test_a_callback_sees_every_result_once_in_order(whole, tmp_path):
    seen = []
    results, _ = searched(tmp_path / "run", on_candidate=seen.append)
    assert seen == results == whole
    again = []
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    searched(tmp_path / "run", on_candidate=again.append)
    assert again == whole


def test_a_callback_ends_the_search_after_the_generation(whole, tmp_path):
    chosen = whole[POPULATION + 1]
    calls = []

    def end(result):
        calls.append(result)
        return result.id == chosen.id

    folder = tmp_path / "run"
    results, why = searched(folder, on_candidate=end)
    wanted = [one for one in whole if one.generation <= chosen.generation]
    assert results == calls == wanted
    assert why == "the callback ended it"
    # Without the callback too: what it decided is kept.
    assert_ends_there(folder, searched)


def test_what_a_callback_raises_comes_to_the_caller_and_nothing_is_lost(
    whole, tmp_path
):
    class Own(Exception):
        pass

    def fail(result):
        if result.id == whole[5].id:
            raise Own("here")

    folder = tmp_path / "run"
    with pytest.raises(Own, match="here"):
        searched(folder, on_candidate=fail)
    assert read_results(folder / "results.jsonl") == whole[:6]
    assert searched(folder) == (whole, None)


def test_a_damaged_decision_is_one_line(tmp_path):
    path = tmp_path / "stopped.json"
    for text in ("", "[]", "{}", '{"generations": "x"}'):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"stopped\.json is (damaged|not JSON)"):
            Watcher(None, path)
