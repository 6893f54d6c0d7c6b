"""Who goes on to the next phase, and what the phases say of each other."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from results import made_result
from scipy.stats import spearmanr
from tasks import TINY

from arch.cost.hardware import HARDWARE
from jaxnas.clock import PHASES_END, TRAINING_ENDS, Clock
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.fitness import FitnessSettings
from jaxnas.evaluation.training_log import Training
from jaxnas.pipeline.last_steps import FORESEEN, steps_ahead
from jaxnas.pipeline.phases import Promotions
from jaxnas.pipeline.promotion import Pool, choose, number_promoted
from jaxnas.population.train_states import States
from jaxnas.population.trainer import Trainer
from jaxnas.results.phases import Chosen, PhaseResult, finalists
from jaxnas.results.ranking import winner_of
from jaxnas.results.trust import rank_correlation, trust_of
from jaxnas.training.keys import training_key
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.phase import FIRST
from jaxnas.training.rungs import rungs_of
from jaxnas.training.settings import TrainSettings


def lines_of(number, seed=0, objectives=3, failed=()):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 6, (number, objectives)).astype(float)
    return [
        made_result(
            at,
            generation=at // 4,
            status="failed" if at in failed else "ok",
            objectives=row.tolist(),
            fitness=float(-row.sum() + 1e-3 * at),
            accuracy=float(-row[0]),
        )
        for at, row in enumerate(rows)
    ]


def dominates(one, other):
    pairs = list(zip(one.objectives, other.objectives, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("number", [1, 3, 7])
def test_no_one_left_behind_dominates_one_that_goes_on(seed, number):
    lines = lines_of(21, seed, failed=(2, 9))
    chosen = choose(lines, number, lucky=0, seed=0)
    ok = [line for line in lines if line.status == "ok"]
    fittest = max(ok, key=lambda line: line.fitness)
    assert len(chosen.promoted) == number
    assert fittest in chosen.promoted
    behind = [line for line in ok if line not in chosen.promoted]
    for one, other in itertools.product(behind, chosen.promoted):
        assert other is fittest or not dominates(one, other)


def test_of_those_at_the_ends_the_best_at_the_first_objective_goes_on():
    # Each is at an end of some objective.
    rows = [(3.0, 0.0, 2.0), (3.0, 2.0, 0.0), (0.0, 3.0, 3.0), (1.0, 2.5, 2.5)]
    lines = [
        dataclasses.replace(line, objectives=list(row), fitness=-float(at))
        for at, (line, row) in enumerate(zip(lines_of(4), rows, strict=True))
    ]
    chosen = choose(lines, 2, lucky=0, seed=0)
    assert [line.id for line in chosen.promoted] == [0, 2]  # 0 is the fittest


def test_the_winner_is_the_fittest_unless_a_clock_chose_another_finalist():
    lines = lines_of(6, failed=(1,))
    fittest = max(
        (line for line in lines if line.status == "ok"), key=lambda line: line.fitness
    )
    [other, *_] = [line for line in lines if line not in (fittest, lines[1])]
    assert winner_of(lines, None) is fittest
    assert winner_of(lines, other.id) is other
    for unknown in (1, 99):  # it failed; there is none
        assert winner_of(lines, unknown) is fittest
    assert winner_of([lines[1]], 1) is None


def test_where_something_else_decides_it_goes_before_all():
    lines = lines_of(9)
    assert max(lines, key=lambda line: line.fitness).id != 0
    worth = lambda line: -line.id
    chosen = choose(lines, 1, lucky=0, seed=0, worth=worth)
    assert [line.id for line in chosen.promoted] == [0]
    pool = Pool(lambda known: 1, 0, 0, lambda line: line.objectives, worth)
    pool.read(lines)
    assert [line.id for line in pool.results] == [0]
    # Of those with one training the best stands for all.
    pairs = choose(lines, 9, 0, 0, worth=worth, alike=lambda line: line.id // 2)
    assert sorted(line.id for line in pairs.every) == [0, 2, 4, 6, 8]


def test_the_lucky_are_drawn_from_the_others():
    lines = lines_of(30)
    drawn = set()
    for seed in range(40):
        chosen = choose(lines, 5, lucky=2, seed=seed)
        assert len(chosen.lucky) == 2
        taken = {line.id for line in chosen.promoted}
        assert not taken & {line.id for line in chosen.lucky}
        drawn |= {line.id for line in chosen.lucky}
        assert chosen == choose(lines[::-1], 5, lucky=2, seed=seed)
    assert len(drawn) > 18  # of 25
    assert choose(lines[:3], 5, lucky=2, seed=0).lucky == []
    assert choose(lines_of(2, failed=(0, 1)), 5, 2, 0) == Chosen([], [])


@pytest.mark.parametrize("seed", range(4))
def test_a_pool_loses_no_one_who_is_still_among_the_best(seed):
    lines = lines_of(40, seed)
    pool = Pool(lambda known: 6, 2, 0, lambda line: line.objectives)
    seen = set()
    for generation in range(10):
        known = lines[: 4 * generation + 4]
        before = {line.id for line in pool.results}
        pool.read(known)
        now = {line.id for line in pool.results}
        new = {line.id for line in known[-4:]}
        assert now <= before | new  # who dropped out does not come back
        assert len(now) <= 8
        seen |= now
    again = Pool(lambda known: 6, 2, 0, lambda line: line.objectives)
    again.read(lines)  # as a resume does, at once
    assert again.results == pool.results
    fittest = max(lines, key=lambda line: line.fitness)
    assert fittest in pool.results


def test_a_pool_grows_with_a_search_that_finds_more_than_was_planned():
    """Else those that were drawn at random would come as if by rank."""
    lines = lines_of(40, 1)
    promotions = Promotions(share=0.25, lucky=2, seed=0, by=(0, 1, 2), by_curve=False)
    evaluator = knowing(None)
    pool = promotions.pool(evaluator, 12)
    for known in range(4, 41, 4):
        pool.read(lines[:known])
        assert len(pool.results) == min(
            known, number_promoted(max(12, known), 0.25) + 2
        )
    again = promotions.pool(evaluator, 12)
    again.read(lines)  # as a resume does, at once
    assert again.results == pool.results


@pytest.mark.parametrize(
    ("candidates", "share", "number"),
    [(100, 0.25, 25), (10, 0.25, 3), (2, 0.25, 2), (9, 0.5, 5), (0, 0.5, 0), (5, 1, 5)],
)
def test_how_many_go_on(candidates, share, number):
    assert number_promoted(candidates, share) == number


def scored(accuracies, by="rank"):
    return [
        made_result(at, accuracy=accuracy, by=by) for at, accuracy in accuracies.items()
    ]


def test_what_phases_say_of_each_other():
    first = scored({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5, 5: 0.05})
    promoted, lucky = first[2:5], first[:1]
    second = scored({2: 0.5, 3: 0.7, 4: 0.6, 0: 0.8})
    trust = trust_of(
        "fast",
        first,
        [PhaseResult("full", Chosen(promoted, lucky), second)],
        [0.5, 0.54],
    )
    [step] = trust["phases"]
    assert (step["from"], step["to"], step["candidates"]) == ("fast", "full", 6)
    assert (step["promoted"], step["lucky"], step["left_behind"]) == (3, 1, 2)
    pairs = [(0.3, 0.5), (0.4, 0.7), (0.5, 0.6)]
    assert step["correlation_promoted"] == pytest.approx(0.5)
    every = spearmanr(*zip(*pairs, (0.1, 0.8), strict=True)).statistic
    assert step["correlation"] == pytest.approx(every)
    # The best of all was there by luck alone.
    assert (step["top"], step["top_by_luck"]) == (3, 1)
    assert trust["noise"]["std"] == pytest.approx(np.std([0.5, 0.54], ddof=1))


def test_a_correlation_needs_three_different_values():
    assert rank_correlation(scored({0: 0.1, 1: 0.2}), scored({0: 0.1, 1: 0.2})) is None
    flat = scored({0: 0.1, 1: 0.1, 2: 0.1})
    assert rank_correlation(flat, scored({0: 0.1, 1: 0.2, 2: 0.3})) is None


def test_the_finalists_are_of_the_last_phase_in_which_one_succeeded():
    first, second = scored({0: 0.1}), scored({0: 0.2})
    third = [made_result(0, status="failed")]
    phases = [
        PhaseResult("b", Chosen([], []), second),
        PhaseResult("c", Chosen([], []), third),
    ]
    assert finalists(first, phases) == (1, second)
    assert finalists(first, []) == (0, first)


RUNGS = rungs_of(
    {
        "fast": PhaseLength(samples=400, epochs=1),
        "medium": PhaseLength(samples=1600, epochs=1),
        "full": PhaseLength(samples=6400, epochs=1),
    },
    TrainSettings(window=8, batch=4, steps_per_call=5, learning_rate=1e-3),
)
STAGES = "", "@medium", "@full"


def trainer_of_three(states=None):
    return Trainer(task=None, rungs=RUNGS, eval_windows=1, states=states)


def test_a_phase_keeps_its_own_states_and_those_below_and_above(tmp_path):
    trainer = trainer_of_three(States(tmp_path))
    other = dataclasses.replace(TINY, num_layers=2)
    for one, stage in itertools.product((TINY, other), STAGES):
        (tmp_path / training_key(one, stage)).mkdir()

    def left():
        return {path.name for path in tmp_path.iterdir()}

    fast, medium, full = trainer.phases
    assert [phase.stage for phase in trainer.phases] == list(STAGES)
    own, others = ([training_key(one, at) for at in STAGES] for one in (TINY, other))
    trainer.keep_states([TINY], fast)
    assert left() == {*own, *others[1:]}
    trainer.keep_states([TINY], medium)
    assert left() == {*own, others[2]}
    trainer.keep_states([TINY], full)
    assert left() == set(own[1:])
    trainer.keep_states([], full)
    assert left() == set()


def knowing(training, **more):
    """An evaluator that knows one training of everything."""
    return Evaluator(
        trainer=trainer_of_three(),
        hardware=HARDWARE["cpu-core"],
        fitness=FitnessSettings(size_weight=0, latency_weight=0),
        trainings=SimpleNamespace(find=lambda config, phase: training),
        **more,
    )


def test_where_seconds_are_left_what_trains_faster_is_worth_more():
    """Of equal losses and curves the one that has time for more steps comes lower."""
    curve = tuple((step, 2 + 3 * (step + 1) ** -0.4) for step in range(10, 90, 10))
    ahead = {TINY: 900.0, dataclasses.replace(TINY, num_layers=3): 300.0}
    training = Training(key="", metrics={}, curve=curve)
    steps_of = lambda config, done: ahead[config]
    evaluator = knowing(training, steps_ahead=steps_of)
    promotions = Promotions(share=0.25, lucky=0, seed=0, by=(0,), by_curve=False)
    phase = evaluator.trainer.phases[0]
    for config, steps in ahead.items():
        result = made_result(objectives=[0.9, 3, 5], loss=3.0, config=config)
        comes_to = 3.0 - 3 * (101**-0.4 - (101 + steps) ** -0.4)
        found = promotions.objectives(evaluator)(result)
        assert found == pytest.approx([comes_to], abs=1e-3)
        worth = evaluator.prospects.worth(config, result, phase)
        assert worth == pytest.approx(-comes_to, 1e-3)
    # Before it is recorded a training counts as it does afterwards; the search's
    # phase has no name.
    new = knowing(None, steps_ahead=steps_of)
    assert new.prospects.worth(TINY, result, phase) == -3.0
    for same in (phase, FIRST):
        found = new.prospects.worth(TINY, result, same, training)
        assert found == evaluator.prospects.worth(TINY, result, phase)
    assert knowing(training).prospects.worth(TINY, result, phase) == result.fitness


def test_steps_ahead_are_those_of_the_budget_at_the_pace_that_was_planned_with(
    tmp_path,
):
    settings = TrainSettings(window=16, batch=4, learning_rate=1e-3)
    task = SimpleNamespace(settings=settings)
    trainer = dataclasses.replace(trainer_of_three(), task=task)
    deep = dataclasses.replace(TINY, num_layers=6)
    typical = lambda: [TINY, TINY, deep]
    none = Clock(None, tmp_path / "none.json", 0.0)
    assert steps_ahead(none, trainer, typical) is None
    clock = Clock(1000.0, tmp_path / "budget.json", 0.0)
    clock.decide("open", ["phases"])
    assert steps_ahead(clock, trainer, typical) is None  # the user's own last training
    steps = {}
    for factor in (1.0, 2.0):
        clock = Clock(1000.0, tmp_path / f"{factor}.json", 0.0)
        clock.decide("open", ["final_steps"])
        clock.decide("pace", [1.0, factor])
        ahead, many = steps_ahead(clock, trainer, typical), 10**9
        steps[factor] = ahead(TINY, many)
        assert ahead(deep, many) < steps[factor]
        trainer.pace.learn("call", 1.0, 5.0)  # later than the plan: nothing changes
        again = steps_ahead(clock, trainer, lambda: [deep])
        assert ahead(TINY, many) == again(TINY, many) == steps[factor]
        # A curve of 10 steps says nothing of more than 8 times as many.
        assert ahead(TINY, 10) == pytest.approx(FORESEEN * 10)
        ratio = ahead(deep, 10) / ahead(TINY, 10)
        assert ratio == pytest.approx(ahead(deep, many) / ahead(TINY, many))
    assert steps[1.0] == pytest.approx(2 * steps[2.0])
    # What trains elsewhere has the seconds that it has there, also after a resume.
    seconds = 1000 * (TRAINING_ENDS - PHASES_END)
    clock.decide("ahead", 2 * seconds)
    clock = Clock(1000.0, tmp_path / "2.0.json", 0.0)
    assert steps_ahead(clock, trainer, typical)(TINY, many) == 2 * steps[2.0]


def test_a_curve_foretells_what_is_left_to_fall_of_a_candidates_own_loss():
    """Compressed ones share the curve of their training, not its loss."""
    curve = tuple((step, 2 + 3 * (step + 1) ** -0.4) for step in range(10, 90, 10))
    training = Training(key="", metrics={}, curve=curve)
    stopped = dataclasses.replace(training, stopped=80)
    assert [rung.steps for rung in RUNGS] == [100, 400, 1600]
    promotions = Promotions(share=0.25, lucky=0, seed=0, by=(0, 1, 2), by_curve=True)

    def predicted(known, loss):
        result = made_result(objectives=[0.9, 3.0, 5.0], loss=loss)
        return promotions.objectives(knowing(known))(result)

    fall = 3 * (101**-0.4 - 1601**-0.4)
    for loss in (2.4, 6.0):
        assert predicted(training, loss) == pytest.approx([loss - fall, 3, 5], abs=1e-3)
        assert predicted(stopped, loss) == [loss, 3, 5]
        assert predicted(None, loss) == [loss, 3, 5]
