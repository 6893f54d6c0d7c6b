"""Who shares a program, as arithmetic: rates are made up, nothing is compiled."""

import dataclasses
import itertools
import json
import math

import jax
import numpy as np
import pytest

from arch import ArchitectureConfig
from arch.families import FAMILIES
from arch.padding import common_shape, shape_key
from arch.spaces import SPACES
from jaxnas.population.cost_model import QUICK_FACTOR, Rates, fitted_rates, work_of
from jaxnas.population.plan import Plan
from jaxnas.population.planner import MOST_LANES, Expected, Planner
from jaxnas.population.program import EXACT_FORMS, Program
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import training_config

SETTINGS = TrainSettings(window=32, batch=4, learning_rate=1e-3)
FIELDS = {"vocab_size": 512, "max_seq_length": 32}
LARGE = {"vocab_size": 8192, "max_seq_length": 128}
BASE = ArchitectureConfig(
    arch_type="transformer",
    num_layers=4,
    hidden_dim=64,
    num_heads=4,
    ffn_multiplier=4.0,
    normalization="layernorm",
    activation="gelu",
    position_encoding="absolute",
    **FIELDS,
)
# Alike but for what a program of traits takes as data.
ALIKE = [
    dataclasses.replace(BASE, **changes)
    for changes in (
        {},
        {"num_layers": 2},
        {"hidden_dim": 32},
        {"ffn_multiplier": 2.0, "activation": "silu"},
        {"normalization": "rmsnorm", "position_encoding": "rope"},
    )
]
MIXED = [
    *ALIKE,
    dataclasses.replace(BASE, num_heads=8),
    dataclasses.replace(BASE, arch_type="mamba"),
    dataclasses.replace(BASE, arch_type="mamba", hidden_dim=128),
    dataclasses.replace(BASE, arch_type="rwkv"),
]


def rates_of(compile=1.0, flop=1e-11, blocks=0.0, workers=1):
    """The same for all families: a compilation, and a floating-point operation."""
    return Rates(
        step={name: [0.0, 0.0, 0.0, flop, 0.0, 0.0] for name in FAMILIES},
        compile={name: [compile, 0.0, blocks] for name in FAMILIES},
        memory={name: [4.0, 4.0] for name in FAMILIES},
        workers=workers,
    )


def fitted_but(compile_factor):
    """Fitted rates, but compilations take so many times as long."""
    fitted = fitted_rates()
    compile = {
        name: [rate * compile_factor for rate in rates]
        for name, rates in fitted.compile.items()
    }
    return dataclasses.replace(fitted, compile=compile)


def launch_bound(settings):
    """A device on which 8 lanes of a model of `medium` cost 1.3 times one lane."""
    typical = dataclasses.replace(
        BASE, num_layers=8, hidden_dim=384, ffn_multiplier=3.0, **LARGE
    )
    one = Program(shape=training_config(typical), form="looped", vmapped=True)
    step = 4e-3
    a_lane = 0.3 / 7 * step
    values = work_of(one, one.shape, settings).values
    rates = dataclasses.replace(
        fitted_but(2.0),
        step={name: [step - a_lane, 0, 0, 0, a_lane / values, 0] for name in FAMILIES},
        workers=1,
    )
    eight = dataclasses.replace(one, lanes=8)
    assert rates.step_seconds(one, one.shape, settings) == pytest.approx(step)
    assert rates.step_seconds(eight, one.shape, settings) == pytest.approx(1.3 * step)
    return rates


CHEAP, DEAR = rates_of(compile=1e-9), rates_of(compile=1e6)


def planner_of(rates, **changes):
    return Planner(**{"rates": rates, "settings": SETTINGS, "steps": 100} | changes)


def trained(configs):
    """Distinct configs, as the evaluator hands them to the planner."""
    return list(dict.fromkeys(map(training_config, configs)))


def population(seed, size, space="full", fields=FIELDS):
    """Distinct members of a space."""
    chosen = SPACES[space]
    genomes = chosen.sample(jax.random.key(seed), size)
    return trained(chosen.decode(genome.tolist(), **fields) for genome in genomes)


def assert_partition(plan, configs):
    """Every candidate is in one bucket, whose program takes it."""
    members = [at for bucket in plan.buckets for at in bucket.members]
    assert sorted(members) == list(range(len(configs)))
    for bucket in plan.buckets:
        assert all(bucket.program.takes(configs[at]) for at in bucket.members)
        assert 0 <= bucket.waste < 1
        assert bucket.program.form != "exact" or bucket.waste == 0
        assert [at for group in bucket.groups for at in group] == [*bucket.members]
        assert all(len(group) <= bucket.program.lanes for group in bucket.groups)


def cost_of(planner, assigned, known=()):
    """Seconds of compiling, once a program, and of training: (program, config)s."""
    programs = {program for program, _ in assigned} - set(known)
    compiling = sum(map(planner.rates.compile_seconds, programs))
    return compiling + sum(planner.member_seconds(*pair) for pair in assigned)


def assigned_by(plan, configs):
    return [(b.program, configs[at]) for b in plan.buckets for at in b.members]


def all_exact(configs):
    return [(Program(shape=config), config) for config in configs]


def one_a_key(planner, configs):
    """The best program that holds all of a key, for each key."""
    found = []
    for key in dict.fromkeys(map(shape_key, configs)):
        inside = [config for config in configs if shape_key(config) == key]
        options = [Program(shape=inside[0])]
        options += planner._elastic(common_shape(inside), len(inside))
        fitting = [
            [(program, config) for config in inside]
            for program in options
            if all(map(program.takes, inside))
        ]
        if fitting:
            found += min(fitting, key=lambda pairs: cost_of(planner, pairs))
        else:  # widths that cannot be padded
            found += all_exact(inside)
    return found


def partitions(items):
    """Every way to divide a list into parts."""
    if not items:
        yield []
        return
    first, *rest = items
    for number in range(len(rest) + 1):
        for others in itertools.combinations(rest, number):
            left = [one for one in rest if one not in others]
            yield from ([[first, *others], *parts] for parts in partitions(left))


def one_program(planner, configs):
    """Seconds of the best program that holds all of these."""
    programs = planner._elastic(common_shape(configs), len(configs))
    if len(configs) == 1:
        programs += [Program(shape=configs[0], form=form) for form in EXACT_FORMS]
    return min(
        cost_of(planner, [(program, config) for config in configs])
        for program in programs
    )


def test_cheap_compilations_give_each_its_own_shape():
    configs = trained(MIXED)
    plan = planner_of(CHEAP, steps=100_000).plan(configs)
    assert_partition(plan, configs)
    for bucket in plan.buckets:
        assert bucket.waste == pytest.approx(0, abs=0.01)


def test_dear_compilations_are_shared_by_all_that_can():
    configs = trained(MIXED)
    plan = planner_of(DEAR).plan(configs)
    assert_partition(plan, configs)
    assert len(plan.buckets) == len(set(map(shape_key, configs))) == 3
    largest = max(plan.buckets, key=lambda bucket: len(bucket.members))
    assert len(largest.members) == len(ALIKE) + 1  # other heads are data
    assert largest.program.elastic
    assert largest.waste > 0.1
    quick = [bucket.program.quick for bucket in plan.buckets]
    seconds = [bucket.compile_seconds for bucket in plan.buckets]
    assert seconds == [1e6 * (QUICK_FACTOR if one else 1) for one in quick]


def test_the_longer_the_training_the_more_programs():
    configs = population(0, 40)
    numbers = []
    for steps in (1, 100, 10_000, 1_000_000):
        plan = planner_of(rates_of(), steps=steps).plan(configs)
        numbers.append(len(plan.programs()))
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[-1]


def test_a_candidate_that_many_like_it_follow_is_worth_a_program():
    # Two widths: the narrow one's own program pays for many, not for one.
    configs = trained([BASE, dataclasses.replace(BASE, hidden_dim=32)])
    planner = planner_of(rates_of())
    wide, own = planner.plan(configs), planner.plan(configs, horizon=1e6)
    assert [len(plan.buckets) for plan in (wide, own)] == [1, 2]
    # What fits one model alone is of no use to those like it.
    assert all(program.elastic for program in own.programs())


def test_known_programs_cost_nothing_and_are_preferred():
    configs = trained(ALIKE)
    planner = planner_of(rates_of())
    first = planner.plan(configs)
    [program] = first.programs()
    again = planner.plan(configs[:2], known=[program])
    assert [bucket.program for bucket in again.buckets] == [program]
    assert again.buckets[0].compile_seconds == 0
    assert again.seconds == pytest.approx(again.buckets[0].seconds)
    # But they are no duty: a small one in a huge shape pays for its own.
    huge = dataclasses.replace(BASE, hidden_dim=4096, num_layers=64)
    huge = Program(shape=training_config(huge), form="looped")
    alone = planner.plan(configs[1:2], known=[huge])
    assert huge.takes(configs[1])
    assert alone.buckets[0].program != huge


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_compiled_for_what_is_known(seed):
    configs = population(seed, 40)
    planner = planner_of(fitted_rates(), steps=200)
    known = planner.plan(configs, horizon=1.0).programs()
    again = planner.plan(configs[::-1], known=known, horizon=1.0)
    assert_partition(again, configs[::-1])
    assert set(again.programs()) <= set(known)
    assert all(bucket.compile_seconds == 0 for bucket in again.buckets)


def test_similar_candidates_need_no_new_program():
    planner = planner_of(DEAR)
    # Where others like each are to come; for the last ones programs may be narrow.
    known = planner.plan(trained(MIXED), horizon=1.0).programs()
    changes = [
        {"normalization": name, "position_encoding": position, "num_layers": layers}
        for name in ("layernorm", "rmsnorm", "groupnorm")
        for position in ("absolute", "rope", "alibi")
        for layers in (1, 3, 4)
    ]
    similar = trained(
        dataclasses.replace(ALIKE[at % len(ALIKE)], **change, residual_dropout=0.1)
        for at, change in enumerate(changes)
    )
    assert not set(similar) & set(trained(MIXED))
    plan = planner.plan(similar, known=known)
    assert_partition(plan, similar)
    assert set(plan.programs()) <= set(known)


def test_programs_are_prepared_for_what_is_expected():
    rwkv = training_config(dataclasses.replace(BASE, arch_type="rwkv"))
    larger = training_config(dataclasses.replace(BASE, num_layers=8))
    planner = planner_of(rates_of())
    expected = [Expected(config=one, number=20.0) for one in (rwkv, larger)]
    plan = planner.plan(trained(ALIKE), expected=expected, prepares=True)
    assert_partition(plan, trained(ALIKE))
    every = plan.programs()
    assert any(program.takes(rwkv) for program in plan.prepared)
    assert any(program.takes(larger) for program in every)
    assert not set(plan.prepared) & {bucket.program for bucket in plan.buckets}
    # What is there need not be prepared, and nothing is for nobody.
    later = planner.plan(trained(ALIKE), every, expected=expected, prepares=True)
    assert later.prepared == ()
    assert planner.plan(trained(ALIKE), prepares=True).prepared == ()
    # Without preparing they are chosen for all the same.
    sooner = planner.plan(trained(ALIKE), expected=expected)
    assert sooner == dataclasses.replace(plan, prepared=(), seconds=sooner.seconds)
    assert any(bucket.program.takes(larger) for bucket in sooner.buckets)


def test_a_price_keeps_it_from_compiling():
    configs = trained(ALIKE)
    large = dataclasses.replace(BASE, hidden_dim=256, activation="geglu")
    known = [Program(shape=training_config(large), form="looped")]
    planner = planner_of(rates_of(), steps=1000)
    freely, dearly = (
        planner.plan(configs, known, compile_weight=p) for p in (1.0, 1e6)
    )
    assert not set(freely.programs()) & set(known)
    assert dearly.programs() == known
    # Who fits into nothing that is known is trained all the same.
    other = trained([dataclasses.replace(BASE, arch_type="mamba")])
    assert_partition(planner.plan(other, known, compile_weight=1e6), other)


@pytest.mark.parametrize("number", [1, 2, 3, 8, 9, 40])
def test_lanes_are_powers_of_two_that_the_members_fill(number):
    configs = trained(
        dataclasses.replace(BASE, ffn_dim=64 + at, residual_dropout=at / 100)
        for at in range(number)
    )
    plan = planner_of(DEAR, vmapped=True).plan(configs)
    assert_partition(plan, configs)
    [bucket] = plan.buckets
    lanes = bucket.program.lanes
    if number > 1:
        assert bucket.program.vmapped
    assert math.log2(lanes).is_integer()
    assert lanes == min(MOST_LANES, 2 ** math.ceil(math.log2(number)))
    assert len(bucket.groups) == math.ceil(number / lanes)
    # Empty lanes take their time too.
    lane = planner_of(DEAR, vmapped=True).member_seconds(bucket.program, configs[0])
    assert bucket.seconds == pytest.approx(lane * lanes * len(bucket.groups), rel=0.2)


def test_lanes_are_as_many_as_the_memory_holds():
    configs = trained(dataclasses.replace(BASE, ffn_dim=64 + at) for at in range(16))
    rates = DEAR
    one = Program(shape=configs[-1], form="looped", vmapped=True)
    a_lane = rates.memory_bytes(one, SETTINGS)
    found = {}
    for room in (1.5, 4.5, 9.0, 100.0):
        planner = planner_of(rates, vmapped=True, memory=room * a_lane)
        plan = planner.plan(configs)
        assert_partition(plan, configs)
        found[room] = max(bucket.program.lanes for bucket in plan.buckets)
        for bucket in plan.buckets:
            assert rates.memory_bytes(bucket.program, SETTINGS) <= room * a_lane
    assert found == {1.5: 1, 4.5: 4, 9.0: 8, 100.0: 16}


def test_one_after_the_other_there_is_one_lane():
    plan = planner_of(DEAR, vmapped=False).plan(trained(MIXED))
    assert {bucket.program.lanes for bucket in plan.buckets} == {1}


def test_who_does_not_fit_is_left_to_its_own_program():
    """What does not fit even so, fails in training, with its reason."""
    configs = trained(MIXED)
    plan = planner_of(DEAR, memory=1.0, vmapped=True).plan(configs)
    assert_partition(plan, configs)
    assert len(plan.buckets) == len(configs)
    assert {bucket.program.lanes for bucket in plan.buckets} == {1}


@pytest.mark.parametrize("devices", [2, 3, 8])
@pytest.mark.parametrize("rates", [CHEAP, rates_of(), DEAR], ids=["cheap", "", "dear"])
@pytest.mark.parametrize("seed", range(2))
def test_no_device_is_idle_if_there_are_members_for_it(devices, rates, seed):
    for size in (2, devices, 30):
        configs = population(seed, size)
        planner = planner_of(rates, speeds=(1.0,) * devices)
        plan = planner.plan(configs)
        assert_partition(plan, configs)
        assert len(plan.buckets) >= min(devices, len(configs))
        used = {bucket.device for bucket in plan.buckets}
        assert used == set(range(min(devices, len(configs))))


def test_a_long_lone_training_leaves_the_others_their_devices():
    long = dataclasses.replace(BASE, arch_type="mamba", num_layers=64, hidden_dim=512)
    configs = trained([long, *ALIKE])
    plan = planner_of(DEAR, speeds=(1.0,) * 4).plan(configs)
    assert_partition(plan, configs)
    assert {bucket.device for bucket in plan.buckets} == {0, 1, 2, 3}


def test_faster_devices_get_more_work():
    configs = trained(
        dataclasses.replace(BASE, ffn_dim=64 + at, arch_type=family)
        for at in range(24)
        for family in ("transformer", "rwkv", "linear_transformer")
    )
    plan = planner_of(rates_of(), speeds=(1.0, 3.0), steps=10_000).plan(configs)
    assert_partition(plan, configs)
    work = [
        sum(bucket.seconds for bucket in plan.buckets if bucket.device == device)
        for device in (0, 1)
    ]
    assert 0 < 1.5 * work[0] < work[1]


def test_more_devices_take_less_time_under_vmap():
    configs = population(0, 60, "medium")
    seconds = []
    for number in (1, 2, 4):
        planner = planner_of(
            fitted_but(0.01), steps=5000, vmapped=True, speeds=(1.0,) * number, cores=64
        )
        planner = dataclasses.replace(planner, shares_cores=False)
        seconds.append(planner.plan(configs).seconds)
    assert seconds[1] < 0.7 * seconds[0]
    assert seconds[2] < 0.7 * seconds[1]


def test_a_lone_candidate_is_not_put_into_many_lanes():
    [config] = trained([BASE])
    wide, narrow = (
        Program(shape=common_shape([config]), form="looped", lanes=lanes, vmapped=True)
        for lanes in (32, 1)
    )
    planner = planner_of(fitted_rates(), vmapped=True, steps=1000)
    plan = planner.plan([config], known=[wide, narrow])
    assert [bucket.program for bucket in plan.buckets] == [narrow]


def test_a_program_stays_on_the_device_that_has_it():
    configs = trained([BASE, dataclasses.replace(BASE, num_layers=2)])
    planner = planner_of(DEAR, speeds=(1.0,) * 4)
    [program] = dataclasses.replace(planner, speeds=(1.0,)).plan(configs).programs()
    plan = planner.plan(configs[:1], known=[program], homes={program: {2}})
    assert [bucket.device for bucket in plan.buckets] == [2]
    assert plan.buckets[0].compile_seconds == 0


def test_the_longest_begins_first():
    configs = population(3, 40)
    plan = planner_of(fitted_rates(), steps=500).plan(configs)
    lengths = [bucket.seconds + bucket.compile_seconds for bucket in plan.buckets]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("vmapped", [False, True])
def test_a_plan_is_read_back_as_it_was(vmapped):
    expected = [Expected(config=training_config(BASE), number=9.0)]
    planner = planner_of(fitted_rates(), vmapped=vmapped, speeds=(1.0, 2.0))
    for seed, size in ((0, 1), (1, 7), (2, 30)):
        plan = planner.plan(population(seed, size), expected=expected)
        values = json.loads(json.dumps(plan.to_dict()))
        assert Plan.from_dict(values) == plan
        assert Plan.from_dict(values).to_dict() == plan.to_dict()
        assert hash(Plan.from_dict(values)) == hash(plan)


@pytest.mark.parametrize("compile_factor", [0.01, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("steps", [20, 400, 5000])
@pytest.mark.parametrize("seed", range(3))
def test_never_worse_than_all_alone_or_all_together(compile_factor, steps, seed):
    planner = planner_of(fitted_but(compile_factor), steps=steps)
    configs = population(seed, [3, 12, 40][seed])
    plan = planner.plan(configs)
    assert_partition(plan, configs)
    found = cost_of(planner, assigned_by(plan, configs))
    predicted = sum(bucket.seconds + bucket.compile_seconds for bucket in plan.buckets)
    assert found == pytest.approx(predicted)
    assert found <= cost_of(planner, all_exact(configs)) * (1 + 1e-9)
    assert found <= cost_of(planner, one_a_key(planner, configs)) * (1 + 1e-9)


@pytest.mark.parametrize("steps", [20, 200, 1000, 5000])
@pytest.mark.parametrize("seed", range(6))
def test_tiny_cases_are_solved_as_well_as_can_be(steps, seed):
    """Against every partition, each part in the best of its programs."""
    rng = np.random.default_rng(seed)
    configs = trained(
        dataclasses.replace(
            BASE,
            num_layers=int(rng.integers(1, 9)),
            hidden_dim=int(rng.choice([32, 64, 128, 256])),
            activation=str(rng.choice(["gelu", "geglu"])),
        )
        for _ in range(5)
    )
    assert len(set(map(shape_key, configs))) == 1
    planner = planner_of(fitted_rates(), steps=steps)
    best = min(
        sum(one_program(planner, part) for part in partition)
        for partition in partitions(configs)
    )
    found = cost_of(planner, assigned_by(planner.plan(configs), configs))
    # Members of one width stay together, and parts are neighbours by width.
    assert best * (1 - 1e-9) <= found <= 1.05 * best


@pytest.mark.parametrize(("space", "most"), [("medium", 12), ("full", 18)])
def test_where_launches_take_the_time_calls_are_full(space, most):
    settings = TrainSettings(window=128, batch=16, learning_rate=1e-3)
    planner = Planner(
        rates=launch_bound(settings),
        settings=settings,
        steps=300,
        vmapped=True,
        cores=16,
        shares_cores=False,
    )
    members = calls = 0
    for seed in range(10):
        configs = population(seed, 50, space, LARGE)
        plan = planner.plan(configs)
        assert_partition(plan, configs)
        assert len(plan.programs()) <= most
        members += len(configs)
        calls += sum(len(bucket.groups) for bucket in plan.buckets)
    assert members / calls >= 4


def test_where_launches_run_ahead_the_slower_counts():
    config = training_config(dataclasses.replace(BASE, **LARGE))
    settings = SETTINGS
    rates = fitted_rates("gpu")
    assert rates.overlaps

    def seconds(lanes):
        program = Program(
            shape=common_shape([config]), form="looped", lanes=lanes, vmapped=True
        )
        return rates.step_seconds(program, config, settings)

    work = work_of(Program(shape=config), config, settings)
    by_step, by_layer, *_, by_value, _ = rates.step[config.arch_type]
    launches = by_step + by_layer * config.num_layers
    assert launches > 2 * by_value * work.values  # as long as there are few lanes
    assert seconds(1) == seconds(2) == pytest.approx(launches)
    assert seconds(1 << 12) == pytest.approx(2 * seconds(1 << 11))
