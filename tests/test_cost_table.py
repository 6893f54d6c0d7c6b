"""Costs by look-up are those of the configs, and limits allow what keeps them."""

import functools

import jax
import numpy as np
import pytest
from test_front import family_space, mixed_space, own_space

from arch.scaling import predicted_loss
from arch.spaces import SPACES
from jaxnas.analytic.cost_table import cost_table, front_genomes
from jaxnas.evaluation.costs import costs_of
from jaxnas.hardware import hardware_named
from search.pareto.exact_front import exact_front

FIELDS = {"vocab_size": 300, "max_seq_length": 32}
HARDWARE = hardware_named("cpu-core")
TABLED = {
    "mixed": mixed_space,
    "own": own_space,
    "family": family_space,
    "nano": lambda: SPACES["nano"],
}


@functools.cache
def tabled(name, latency):
    space = TABLED[name]()
    drawn = space.sample(jax.random.key(0), 300)
    costs = np.asarray([own_costs(space, genome, latency) for genome in drawn])
    # Limits that some of the drawn meet exactly.
    max_size, max_latency = np.quantile(costs, 0.5, axis=0, method="nearest")
    table = cost_table(
        space,
        HARDWARE,
        latency,
        max_size=max_size,
        max_latency=max_latency,
        tokens=1e5,
        **FIELDS,
    )
    return space, drawn, costs, table, (max_size, max_latency)


def own_costs(space, genome, latency):
    costs = costs_of(space.decode(genome, **FIELDS), HARDWARE, latency)
    return costs.size_mib, costs.latency_ms


def own_values(space, genome):
    loss = predicted_loss(space.decode(genome, **FIELDS), 1e5)
    return *own_costs(space, genome, "estimate"), loss


@pytest.mark.parametrize("latency", ["estimate", "decode"])
@pytest.mark.parametrize("name", TABLED)
def test_costs_are_those_of_the_config(name, latency):
    _, drawn, costs, table, limits = tabled(name, latency)
    found = jax.jit(table.costs_of)(drawn)
    np.testing.assert_allclose(found, costs, rtol=1e-6)
    cells = np.asarray(jax.vmap(table.cell)(drawn))
    np.testing.assert_array_equal(table.costs[cells], costs)
    wanted = (costs <= limits).all(axis=1)
    assert 0 < wanted.sum() < len(wanted)
    over = np.asarray(jax.jit(jax.vmap(table.excess))(drawn))
    np.testing.assert_array_equal(over <= 0, wanted)
    assert np.isfinite(over).all()


@pytest.mark.parametrize("name", ["mixed", "own", "family"])
def test_the_models_that_are_allowed_are_counted(name):
    space, _, _, table, limits = tabled(name, "estimate")
    every = np.stack([space.genome_at(index) for index in range(space.total)])
    valid = np.asarray(jax.jit(jax.vmap(space.valid))(every))
    models = {space.decode(genome, **FIELDS) for genome in every[valid]}
    costs = [costs_of(config, HARDWARE, "estimate") for config in models]
    kept = [one.size_mib <= limits[0] and one.latency_ms <= limits[1] for one in costs]
    assert table.feasible == sum(kept) > 0


@pytest.mark.parametrize("name", TABLED)
def test_the_fronts_are_allowed_and_of_every_family(name):
    space, _, _, table, _ = tabled(name, "estimate")
    fronts = front_genomes(table)
    families = [{space.decode(one).arch_type for one in front} for front in fronts]
    assert sorted(family for [family] in families) == sorted(space.families)
    for front in fronts:
        assert front.dtype == np.int32
        assert (np.asarray(jax.vmap(table.excess)(front)) == 0).all()
        assert jax.vmap(space.valid)(front).all()
        np.testing.assert_array_equal(jax.vmap(space.canonical)(front), front)
        values = [own_values(space, genome) for genome in front]
        assert len(exact_front(np.asarray(values))) == len(front)
        assert values[0][2] == min(loss for _, _, loss in values)
