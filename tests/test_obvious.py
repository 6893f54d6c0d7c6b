"""The obvious models: within the limits, of usual proportions, in two sizes."""

import dataclasses
import math

import numpy as np
import pytest
from tasks import TINY

from arch.cost import (
    HARDWARE,
    latency_ms,
    non_embedding_parameters,
    size_mib,
    training_flops,
)
from jaxnas.config import RunConfig
from jaxnas.pipeline.obvious import (
    COSTLIEST,
    TOKENS_PER_PARAMETER,
    WIDTHS,
    Limits,
    choose_obvious,
    llama_like,
    obvious_models,
)

FIELDS = {"vocab_size": 1024, "max_seq_length": 64}
DEVICE = next(iter(HARDWARE.values()))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_proportions_are_usual(width):
    model = llama_like(width, **FIELDS)
    assert model == model.canonical()
    assert model.head_dim == 64 or (model.num_heads == 4 and model.head_dim < 64)
    assert model.feedforward_dim % 32 == 0
    assert abs(model.feedforward_dim - width * 8 / 3) <= 16
    assert 2 <= model.num_layers <= 24
    assert model.num_layers == width // 32 or model.num_layers in (2, 24)
    assert (model.normalization, model.activation, model.position_encoding) == (
        "rmsnorm",
        "swiglu",
        "rope",
    )
    assert model.attention_dropout == model.residual_dropout == 0
    assert (model.quantization, model.pruning_ratio) == ("fp16", 0)


def test_the_widths_ascend_in_small_steps():
    steps = np.divide(WIDTHS[1:], WIDTHS[:-1])
    assert (steps > 1).all()
    assert (steps <= 1.5).all()
    sizes = [non_embedding_parameters(llama_like(width, **FIELDS)) for width in WIDTHS]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("seed", range(20))
def test_they_fit_and_are_the_largest_and_the_one_for_the_tokens(seed):
    rng = np.random.default_rng(seed)
    size, latency = 2 ** rng.uniform(-3, 10), 2 ** rng.uniform(-3, 10)
    tokens = 10 ** rng.uniform(0, 11)
    fields = {"vocab_size": int(rng.choice([257, 8192, 50_000])), "max_seq_length": 64}

    def fits(model):
        return size_mib(model) <= size and latency_ms(model, DEVICE) <= latency

    found = obvious_models(fits, tokens, **fields)
    every = [
        llama_like(width, tie_embeddings=tied, **fields)
        for width in WIDTHS
        for tied in (False, True)
    ]
    fitting = [model for model in every if fits(model)]
    assert len(found) == min(len(found), 2)
    assert bool(found) == bool(fitting)
    assert all(fits(model) and model in every for model in found)
    if not found:
        return
    sizes = [non_embedding_parameters(model) for model in found]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == max(map(non_embedding_parameters, fitting))
    far = [
        abs(math.log(tokens / TOKENS_PER_PARAMETER / non_embedding_parameters(model)))
        for model in fitting
    ]
    wanted = tokens / TOKENS_PER_PARAMETER
    assert abs(math.log(wanted / sizes[0])) == pytest.approx(min(far))
    # Input and output share a matrix only where two have no room.
    for model in found:
        apart = dataclasses.replace(model, tie_embeddings=False)
        assert model.tie_embeddings != fits(apart)


def test_one_if_both_are_the_same_and_none_if_none_fits():
    def small(model):
        return model.hidden_dim <= 32

    assert len(obvious_models(small, 1e6, **FIELDS)) == 1
    assert obvious_models(lambda model: False, 1e6, **FIELDS) == []
    assert len(obvious_models(lambda model: True, 1e6, **FIELDS)) == 2
    [only] = obvious_models(lambda model: True, 1e15, **FIELDS)
    assert only.hidden_dim == WIDTHS[-1]


def limits(winner=TINY, allowed=lambda model: True, **settings):
    return Limits.of(
        RunConfig(space="medium", **settings).resolve("cpu"), winner, allowed
    )


def test_a_limit_of_bytes_is_the_users_or_costs_no_fitness():
    big = llama_like(512, **FIELDS)
    given = limits(big, max_size=3.0, size_target=12.0)
    assert given.size == 3.0
    assert not given.within(big)
    assert limits(size_target=12.0).size == 12.0
    assert limits(big, size_target=12.0).size == size_mib(big)
    assert not limits(allowed=lambda model: False).within(llama_like(32, **FIELDS))


@pytest.mark.parametrize("size", [0.1, 0.5, 30.0])
def test_what_is_left_out_for_its_cost_is_said(size):
    winner = llama_like(64, **FIELDS)
    found = limits(winner, max_size=size)
    models, why = choose_obvious(found, 1e6, winner)
    if size < 0.2:
        assert models == []
        assert "no obvious model fits" in why
        return
    assert all(size_mib(model) <= size for model in models)
    assert all(
        training_flops(model, tokens=64)
        <= COSTLIEST * training_flops(winner, tokens=64)
        for model in models
    )
    assert ("left out" in why) == (size > 4)
    assert f"L{models[-1].num_layers} H{models[-1].hidden_dim}" in why
    assert "\n" not in why
