"""A search by a made-up clock, of trainings that take made-up seconds."""

import io
import types

import jax
import numpy as np
import pytest
from results import made_result
from rich.console import Console

from jaxnas.clock import GRACE, SEARCH_ENDS, Clock, Deadline
from jaxnas.config import RunConfig
from jaxnas.evaluation.evaluator import Evaluation
from jaxnas.hardware import hardware_named
from jaxnas.pipeline.build import make_fitness
from jaxnas.pipeline.limits import costs_of_space
from jaxnas.pipeline.room import MOST_GENERATIONS, room_of
from jaxnas.pipeline.search import Search
from jaxnas.pipeline.strategy import compiled_strategy
from jaxnas.population.trainer import NOTHING_AHEAD
from jaxnas.report.progress import Progress
from jaxnas.results.result import ResultLog
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.jsonl import Lines

SETTINGS = RunConfig(
    space="medium", strategy="random", population=5, generations=2, budget="1000s"
).resolve("cpu")
BUDGET = 550.0 / SEARCH_ENDS  # seconds
FIELDS = {"vocab_size": 1024, "max_seq_length": SETTINGS.window}
TABLE = costs_of_space(SETTINGS, hardware_named("cpu-core"), FIELDS)
STRATEGY = compiled_strategy(SETTINGS, TABLE, make_fitness(SETTINGS), (0,))


class Killed(Exception):
    """The process has ended."""


class Made:
    """An evaluator of trainings that take the seconds of their size, one by one.

    Attributes:
      known: the configs trained so far; they stay known after a kill.
      slower: by how much longer they take than predicted.
      kill: after so many trainings.
    """

    def __init__(self, now, known, slower=1.0, kill=None):
        self.now, self.known, self.slower, self.kill = now, known, slower, kill
        self.fitness, self.max_size = make_fitness(SETTINGS), 1e9
        self.extra, self.steps_ahead = types.SimpleNamespace(names=()), None
        dataset = types.SimpleNamespace(vocab_size=1024)
        settings = types.SimpleNamespace(window=64)
        self.task = types.SimpleNamespace(dataset=dataset, settings=settings)
        predicted = lambda configs: sum(map(seconds_of, configs))
        self.trainer = types.SimpleNamespace(predicted_seconds=predicted)

    def untrained(self, configs):
        return [config for config in configs if config not in self.known]

    def evaluate(self, configs, report, outlook, generation, enough, begins, found):
        assert outlook == NOTHING_AHEAD  # as they were predicted
        for config in configs:
            if config not in self.known:
                if enough(len(self.known)):
                    continue
                if not begins(len(self.known), seconds_of(config)):
                    continue
                if len(self.known) == self.kill:
                    raise Killed
                self.now[0] += self.slower * seconds_of(config)
                self.known.append(config)
            found(config, evaluation_of(config))


def seconds_of(config):
    return 2.0 + config.num_layers


def evaluation_of(config):
    one = made_result(accuracy=config.num_layers / 100)
    return Evaluation(
        status="ok",
        costs=one.costs,
        metrics=one.metrics,
        objectives=one.objectives,
        fitness=one.fitness,
    )


@pytest.fixture
def now(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr("jaxnas.clock.time.monotonic", lambda: seconds[0])
    return seconds


def searched(folder, now, evaluator, most=MOST_GENERATIONS, strategy=STRATEGY):
    """The lines of results that a search leaves, gone on with if there are some."""
    folder.mkdir(exist_ok=True)
    clock = Clock(BUDGET, folder / "budget.json", now[0])
    deadline = Deadline(clock, SEARCH_ENDS, "evaluated")
    quiet = lambda *_: None
    progress = types.SimpleNamespace(
        known=quiet,
        candidate=quiet,
        say=quiet,
        steps=lambda title: quiet,
        begin_generation=quiet,
        end_generation=quiet,
    )
    path = folder / "results.jsonl"
    with (
        ResultLog(path) as results,
    ):
        Search(
            settings=SETTINGS,
            evaluator=evaluator,
            table=TABLE,
            results=results,
            checkpoints=Checkpoints(folder / "checkpoints", keep=3),
            progress=progress,
            deadline=deadline,
            room=room_of(clock, evaluator, deadline),
            most=most,
            strategy=strategy,
        ).run()
    return path.read_text().splitlines(), clock


@pytest.mark.parametrize("slower", [0.5, 1.0, 1.7])
def test_the_time_of_a_search_is_used_and_not_exceeded(tmp_path, now, slower):
    evaluator = Made(now, [], slower)
    lines, clock = searched(tmp_path / "run", now, evaluator)
    assert len(lines) == len(evaluator.known)
    assert len(lines) > SETTINGS.population * SETTINGS.generations
    # None was begun that was predicted to end too late.
    last = seconds_of(evaluator.known[-1])
    assert now[0] <= SEARCH_ENDS * BUDGET + (slower - 1) * last
    assert now[0] >= 0.97 * SEARCH_ENDS * BUDGET
    assert clock.decided("evaluated") == len(lines)


def test_generations_that_were_asked_for_are_not_exceeded(tmp_path, now):
    lines, clock = searched(tmp_path / "run", now, Made(now, []), most=None)
    assert len(lines) == SETTINGS.population * SETTINGS.generations
    assert clock.decided("evaluated") is None


def test_one_is_trained_however_late_it_is(tmp_path, now):
    now[0] = 0.0
    evaluator = Made(now, [], slower=1.0)
    clock = Clock(BUDGET, tmp_path / "none.json", 0.0)
    assert clock.left(SEARCH_ENDS) > 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "budget.json").write_text('{"spent": 900, "decided": {}}')
    lines, _ = searched(tmp_path / "run", now, evaluator)
    assert len(lines) == 1


def test_what_is_stopped_after_the_grace_is_lost_and_the_search_ends(tmp_path, now):
    evaluator = Made(now, [], slower=30.0)
    lines, _ = searched(tmp_path / "run", now, evaluator)
    assert now[0] > (SEARCH_ENDS + GRACE) * BUDGET
    assert len(lines) == len(evaluator.known) < 10


def test_where_nothing_new_is_asked_for_it_ends_with_the_time(tmp_path, now):
    asked = []

    def ask(key, state):
        now[0] += 10.0
        asked.append(STRATEGY.ask(jax.random.key(1), state))
        return asked[0]

    strategy = STRATEGY._replace(ask=ask)
    lines, clock = searched(tmp_path / "run", now, Made(now, []), strategy=strategy)
    assert clock.decided("evaluated") == len(lines) == SETTINGS.population
    assert SEARCH_ENDS * BUDGET <= now[0] <= SEARCH_ENDS * BUDGET + 10


def test_a_strategy_is_told_what_candidates_come_to(tmp_path, now):
    """Where seconds are left; without them, what they reached."""
    told = []

    def tell(state, ids, genomes, objectives, mask):
        told.extend(np.asarray(objectives)[:, 0].tolist())
        return STRATEGY.tell(state, ids, genomes, objectives, mask)

    strategy = STRATEGY._replace(tell=tell)
    evaluator = Made(now, [])
    searched(tmp_path / "reached", now, evaluator, 2, strategy)
    assert 0 < len(told) <= 2 * SETTINGS.population
    assert all(0 < value < 1 for value in told)  # 1 - accuracy
    evaluator.steps_ahead = lambda config, done: 100.0
    worth = lambda config, found, phase: -float(100 + config.num_layers)
    evaluator.prospects = types.SimpleNamespace(worth=worth)
    now[0], reached = 0.0, told.copy()
    told.clear()
    searched(tmp_path / "come to", now, evaluator, 2, strategy)
    layers = [100 * (1 - value) for value in reached]
    assert told == pytest.approx([100 + number for number in layers], abs=1e-3)


@pytest.mark.parametrize("kill", [None, 0, 1, 4, 5, 23, 45])
def test_a_resume_decides_as_before_and_ends_with_the_same_bytes(tmp_path, now, kill):
    folder, known = tmp_path / "run", []
    if kill is not None:
        with pytest.raises(Killed):
            searched(folder, now, Made(now, known, kill=kill))
    lines, _ = searched(folder, now, Made(now, known))
    trained = list(known)
    # As if it had been killed before its end: all is written anew, much later.
    for path in sorted((folder / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "results.jsonl").write_text("")
    now[0] += 10_000.0
    again, _ = searched(folder, now, Made(now, known))
    assert again == lines
    assert known == trained


@pytest.mark.parametrize(
    ("seconds", "words"), [(75.0, "1:15"), (0.2, "0:01"), (-3.0, "0:01")]
)
def test_the_time_left_is_the_clocks_and_never_nothing(tmp_path, seconds, words):
    console = Console(file=io.StringIO())
    with Lines(tmp_path / "timings.jsonl") as timings:
        progress = Progress(console, 10, timings, lambda part: seconds)
        progress.end_generation(0, [made_result()])
    assert f"at most {words} of search left" in console.file.getvalue()
