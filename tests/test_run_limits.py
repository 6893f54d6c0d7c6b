"""What a run's limits rule out is never asked for, by any strategy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searching import jitted

from arch.spaces import SPACES
from jaxnas.config import RunConfig
from jaxnas.errors import RunFailed
from jaxnas.evaluation.costs import costs_of
from jaxnas.evaluation.fitness import FitnessSettings, deciding
from jaxnas.hardware import hardware_named
from jaxnas.pipeline.build import make_fitness
from jaxnas.pipeline.limits import costs_of_space
from jaxnas.pipeline.strategy import make_strategy
from jaxnas.presets import STRATEGY_NAMES

HARDWARE = hardware_named("cpu-core")
FIELDS = {"vocab_size": 1024, "max_seq_length": 64}
POPULATION, GENERATIONS = 8, 4


def settings_of(**given):
    return RunConfig(population=POPULATION, **given).resolve("cpu")


def random_limits(rng):
    """Limits on nano or full, which few of the models or most of them keep to."""
    space = ("nano", "full")[rng.integers(2)]
    drawn = SPACES[space].sample(jax.random.key(rng.integers(2**31)), 200)
    every = [
        costs_of(SPACES[space].decode(one, **FIELDS), HARDWARE, "estimate")
        for one in drawn
    ]
    size, latency = (
        np.quantile([getattr(one, name) for one in every], rng.uniform(0.02, 0.9))
        for name in ("size_mib", "latency_ms")
    )
    given = {"space": space, "max_size": float(size)}
    if rng.random() < 0.7:
        given["max_latency"] = float(latency)
    return given


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("name", STRATEGY_NAMES)
@pytest.mark.sweep(9)
def test_nothing_over_the_limits_is_asked(name, seed):
    """54 searches; each is told objectives that have nothing to do with costs."""
    rng = np.random.default_rng([seed, STRATEGY_NAMES.index(name)])
    settings = settings_of(strategy=name, latency="estimate", **random_limits(rng))
    try:
        table = costs_of_space(settings, HARDWARE, FIELDS)
    except RunFailed:  # the two limits together leave nothing
        return
    scores = make_fitness(settings)
    columns = deciding(scores, 3)
    strategy = jitted(make_strategy(settings, table, scores, columns))
    state = strategy.init(jax.random.key(seed))
    most = settings.max_latency or float("inf")
    for generation in range(GENERATIONS):
        genomes = np.asarray(strategy.ask(jax.random.key(generation), state))
        for genome in genomes:
            config = table.space.decode(genome, **FIELDS)
            costs = costs_of(config, HARDWARE, "estimate")
            assert costs.size_mib <= settings.max_size
            assert costs.latency_ms <= most
        ids = jnp.arange(POPULATION) + generation * POPULATION
        told = rng.random((POPULATION, len(columns)), np.float32)
        told[rng.random(POPULATION) < 0.1] = np.nan
        mask = jnp.ones(POPULATION, bool)
        state = strategy.tell(state, ids, jnp.asarray(genomes), jnp.asarray(told), mask)


def test_limits_that_no_model_keeps_to_are_said_in_one_line():
    settings = settings_of(space="nano", max_size=0.001, max_latency=5.0)
    with pytest.raises(RunFailed) as raised:
        costs_of_space(settings, HARDWARE, FIELDS)
    said = str(raised.value)
    assert "\n" not in said
    assert said.startswith("no model of space nano keeps to 0.001 MiB and 5 ms")


def test_a_first_batch_has_every_family_and_the_best_by_formulas():
    settings = settings_of(strategy="predictor")
    table = costs_of_space(settings, HARDWARE, FIELDS)
    strategy = jitted(make_strategy(settings, table, FitnessSettings(), (0,)))
    state = strategy.init(jax.random.key(0))
    genomes = strategy.ask(jax.random.key(1), state)
    families = {table.space.decode(one).arch_type for one in np.asarray(genomes)}
    assert families == set(table.space.families)
