"""What a search expects to come, and makes room for."""

import math

import pytest

from arch.cost import size_mib
from arch.spaces import SPACES
from jaxnas.keys import key_of
from jaxnas.pipeline.lookahead import outlook_of
from jaxnas.population.program import Program
from jaxnas.training.single import training_config

FIELDS = {"vocab_size": 1024, "max_seq_length": 64}


def expected(space, max_size=math.inf):
    outlook = outlook_of(
        SPACES[space],
        FIELDS,
        population=1000,
        generations=3,
        generation=0,
        new=1000,
        seen=0,
        max_size=max_size,
    )
    return [kind.config for kind in outlook.expected]


@pytest.mark.parametrize(("space", "max_size"), [("medium", 10.0), ("full", 6.0)])
def test_there_is_room_for_all_that_may_come_and_for_nothing_larger(space, max_size):
    kinds = [Program(shape=kind, form="looped") for kind in expected(space, max_size)]
    sample = SPACES[space].sample(key_of(0, "test"), 500)
    every = [SPACES[space].decode(genome, **FIELDS) for genome in sample]
    small = [config for config in every if size_mib(config) <= max_size]
    assert 20 < len(small) < 480
    for config in small:
        assert any(kind.takes(training_config(config)) for kind in kinds), config
    widest = max(kind.shape.hidden_dim for kind in kinds)
    assert widest == max(config.hidden_dim for config in small)


def test_without_a_bound_the_largest_of_all_are_expected():
    kinds = expected("medium")
    assert {kind.num_layers for kind in kinds} == {12}
    assert {kind.hidden_dim for kind in kinds} == {256, 384, 512, 768}
    assert len(expected("medium", 10.0)) < len(kinds)


def test_kinds_that_may_never_come_are_not_expected():
    few = outlook_of(
        SPACES["nano"],
        FIELDS,
        population=12,
        generations=2,
        generation=0,
        new=12,
        seen=0,
    )
    assert few.expected == []
    assert few.horizon > 0


def test_where_nothing_fits_nothing_is_expected():
    assert expected("medium", 0.1) == []
