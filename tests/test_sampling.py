import dataclasses
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from arch.decoding.sampling import GREEDY, Sampling, draw, process_logits

VOCAB = 40
GRID = [
    Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
    )
    for temperature, top_k, top_p, min_p, penalty in itertools.product(
        (0.3, 1.0, 1.9), (0, 1, 7, 99), (0.2, 0.9, 1.0), (0.0, 0.1), (0.7, 1.0, 1.8)
    )
]


def rows(number, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (number, VOCAB)).astype(np.float32)
    return logits, rng.random((number, VOCAB)) < 0.3


@jax.jit
def processed(logits, seen, knobs):
    return jax.vmap(process_logits, (0, 0, None))(logits, seen, knobs)


def by_hand(logits, seen, sampling):
    """The papers' definitions, in float64 and with a sort."""
    scores = logits.astype(np.float64)
    penalty = sampling.repetition_penalty
    worse = np.where(scores < 0, scores * penalty, scores / penalty)
    scores = np.where(seen, worse, scores) / sampling.temperature
    down = np.sort(scores)[::-1]
    if sampling.top_k:
        scores[scores < down[min(sampling.top_k, VOCAB) - 1]] = -np.inf
    order = np.argsort(-scores)
    chances = np.exp(scores[order] - scores.max())
    chances /= chances.sum()
    before = np.concatenate([[0], np.cumsum(chances)[:-1]])
    if sampling.top_p < 1:
        scores[order[before >= sampling.top_p]] = -np.inf
    relative = np.exp(scores - scores.max())
    scores[relative < sampling.min_p] = -np.inf
    return scores


def assert_same_scores(got, wanted):
    """The same tokens are cut, and the others have the same distribution."""
    got = np.asarray(got, np.float64)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(wanted))
    log = lambda x: x - np.log(np.exp(x - x.max()).sum()) - x.max()
    kept = np.isfinite(wanted)
    np.testing.assert_allclose(log(got)[kept], log(wanted)[kept], atol=1e-4)


@pytest.mark.parametrize("part", range(4))
def test_scores_are_those_of_the_definitions(part):
    logits, seen = rows(8, part)
    for sampling in GRID[part::4]:
        got = processed(logits, seen, sampling.knobs())
        for row in range(8):
            wanted = by_hand(logits[row], seen[row], sampling)
            assert_same_scores(got[row], wanted)


def test_scores_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    logits, seen = rows(8)
    # Every row marks as many tokens: its ids, and the first one again.
    ids = [np.flatnonzero(row).tolist() for row in seen]
    longest = max(map(len, ids))
    ids = torch.tensor([row + row[:1] * (longest - len(row)) for row in ids])
    for sampling in GRID[::5]:
        steps = transformers.LogitsProcessorList()
        steps.append(
            transformers.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
        )
        steps.append(transformers.TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            steps.append(transformers.TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            steps.append(transformers.TopPLogitsWarper(sampling.top_p))
        steps.append(transformers.MinPLogitsWarper(sampling.min_p))
        wanted = steps(ids, torch.tensor(logits)).double().numpy()
        got = processed(logits, seen, sampling.knobs())
        for row in range(8):
            assert_same_scores(got[row], wanted[row])


def test_tokens_of_one_score_go_together():
    logits = jnp.log(jnp.asarray([[0.3, 0.2, 0.2, 0.2, 0.1]]))
    for sampling, kept in (
        (Sampling(top_k=2), 4),
        (Sampling(top_k=4), 4),
        (Sampling(top_k=5), 5),
        (Sampling(top_p=0.25), 1),
        (Sampling(top_p=0.35), 4),
        (Sampling(top_p=0.95), 5),
        (Sampling(min_p=0.66), 4),
        (Sampling(min_p=0.67), 1),
    ):
        scores = processed(logits, None, sampling.knobs())
        assert np.isfinite(scores).sum() == kept, sampling


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_logits_of_any_size_keep_their_order(scale):
    logits, _ = rows(4)
    for top_k in (1, 3, VOCAB):
        knobs = Sampling(top_k=top_k, temperature=0.5).knobs()
        kept = np.isfinite(processed(logits * scale, None, knobs))
        likeliest = np.argsort(-logits)[:, :top_k]
        # A low temperature takes what lies far below to minus infinity itself.
        assert np.take_along_axis(kept, likeliest[:, :1], axis=1).all()
        assert (kept.sum(axis=1) <= top_k).all()
        if scale < 1e30:
            assert np.take_along_axis(kept, likeliest, axis=1).all()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.6, top_k=5),
        Sampling(temperature=1.4, top_p=0.8),
        Sampling(min_p=0.01, repetition_penalty=1.5),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(sampling, key):
    number = 20_000
    logits, seen = rows(1, 3)
    logits = logits[0] / 2
    draws = jax.jit(
        lambda keys: jax.vmap(draw, (0, None, None, None))(
            keys, logits, seen[0], sampling.knobs()
        )
    )(jax.random.split(key, number))
    counts = np.bincount(draws, minlength=VOCAB)
    expected = np.exp(by_hand(logits, seen[0], sampling))
    expected *= number / expected.sum()
    assert not counts[expected == 0].any()
    often = expected >= 10  # the others count together
    assert often.sum() > 3
    counts, expected = (
        np.append(x[often], x[~often].sum()) for x in (counts, expected + 1e-9)
    )
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < stats.chi2.isf(1e-4, often.sum())


def test_without_a_temperature_the_first_of_the_likeliest_is_taken(key):
    logits = jnp.asarray([0.0, 3.0, -1.0, 3.0])
    assert GREEDY.knobs().temperature is None
    assert draw(key, logits, None, GREEDY.knobs()) == 1
    # What is cut off is never the likeliest: it costs nothing.
    greedy = Sampling(temperature=0, top_k=3, top_p=0.5, min_p=0.1)
    assert greedy.knobs() == GREEDY.knobs()
    cold = Sampling(temperature=1e-6).knobs()
    logits = jnp.asarray([0.0, 3.0, 2.99, -1e4])
    keys = jax.random.split(jax.random.clone(key), 50)
    drawn = jax.vmap(draw, (0, None, None, None))(keys, logits, None, cold)
    assert (drawn == 1).all()


def test_settings_that_are_off_leave_no_trace():
    knobs = Sampling(top_p=0.9).knobs()
    assert (knobs.top_k, knobs.min_p, knobs.repetition_penalty) == (None, None, None)
    assert Sampling(temperature=2.0, top_p=0.5).knobs().top_p == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 is not allowed: needs 0 or"),
        ({"temperature": 1e-9}, "temperature=1e-09 is not allowed: needs 0 or"),
        ({"temperature": math.nan}, "temperature=nan is not allowed"),
        ({"top_k": -1}, "top_k=-1 is not allowed: needs an int of at least 0"),
        ({"top_k": 2.0}, "top_k=2.0 is not allowed"),
        ({"top_k": True}, "top_k=True is not allowed"),
        ({"top_p": 0}, "top_p=0 is not allowed: needs a number above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p=1.1 is not allowed"),
        ({"min_p": -0.1}, "min_p=-0.1 is not allowed: needs a number from 0 to 1"),
        ({"min_p": 1.1}, "min_p=1.1 is not allowed"),
        ({"repetition_penalty": 0}, "repetition_penalty=0 is not allowed: needs a"),
        ({"repetition_penalty": math.inf}, "repetition_penalty=inf is not allowed"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Sampling(**settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sampling().temperature = 2.0
