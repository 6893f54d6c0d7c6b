"""What a server remembers of a text changes nothing of what follows the next."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks import TINY

from arch import build_model
from arch.decoding.unrolled import forward_with_cache, init_layers, unstack
from arch.families import FAMILIES
from arch.initial import draw_parameters
from jaxnas.serving import reader as module
from jaxnas.serving.reader import Reader

ROOM = 96


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_share_a_beginning_are_read_as_if_alone(family, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 16)
    config = dataclasses.replace(TINY, arch_type=family, max_seq_length=2 * ROOM)
    weights = unstack(draw_parameters(build_model(config), jax.random.key(0)))
    reader = Reader(config, weights, ROOM, jnp.float32)
    read = []
    counted = module.read_on

    def counting(*arguments):
        read.append(int(arguments[-1][0]))
        return counted(*arguments)

    monkeypatch.setattr(module, "read_on", counting)
    rng = np.random.default_rng(0)
    text = rng.integers(0, config.vocab_size, 70).tolist()
    other = rng.integers(0, config.vocab_size, 20).tolist()
    for ids in (text[:60], text[:61], text, text[:40] + other, text[:5], text, text):
        before = len(read)
        logits, states = reader.read(ids)
        alone, _ = forward_with_cache(
            config,
            weights,
            np.asarray([ids], np.int32),
            init_layers(config, 1, ROOM, jnp.float32),
        )
        np.testing.assert_allclose(logits, alone, atol=1e-4)
        assert sum(read[before:]) <= len(ids)
        reader.take_back([1, 2, 3], _after(config, weights, states, [1, 2]))
    # A token more is a token read; the same text again, a piece or the end of one.
    assert read[4] == 1
    assert read[-1] <= 16


def _after(config, weights, states, drawn):
    for token in drawn:
        _, states = forward_with_cache(
            config, weights, np.asarray([[token]], np.int32), states
        )
    return states


def test_what_was_drawn_is_remembered_too():
    weights = unstack(draw_parameters(build_model(TINY), jax.random.key(0)))
    reader = Reader(TINY, weights, ROOM, jnp.float32)
    _, states = reader.read([1, 2, 3])
    reader.take_back([4, 5, 6], _after(TINY, weights, states, [4, 5]))
    assert reader._known([1, 2, 3, 4, 5, 6])[0] == 5
