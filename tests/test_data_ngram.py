import math
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from jaxnas.data.ngram import (
    bigram_choice,
    bigram_probability,
    fit_bigram,
    fit_unigram,
    score_bigram,
    score_unigram,
)


def draw(seed: int, vocab_size: int, size: int):
    """Skewed tokens with holes: some ids never occur, some only at evaluation."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(vocab_size, 0.3))
    train = rng.choice(vocab_size, size, p=weights).astype(np.uint16)
    windows = rng.integers(0, vocab_size, (5, 9), dtype=np.int32)
    windows[:3] = train[: 3 * 9].reshape(3, 9)
    sizes = rng.integers(1, 9, vocab_size, dtype=np.int32)
    sizes[0] = 0
    return train, windows, sizes


def naive(train, vocab_size):
    """Both models as dicts of Python numbers: p(w), p(h, w)."""
    train = train.tolist()
    counts, follows = Counter(train), defaultdict(Counter)
    for left, right in pairwise(train):
        follows[left][right] += 1
    p = lambda w: (counts[w] + 1) / (len(train) + vocab_size)

    def q(h, w):
        seen = follows[h]
        if not seen:
            return p(w)
        kinds = len(seen)
        return (seen[w] + kinds * p(w)) / (seen.total() + kinds)

    return p, q


@pytest.mark.parametrize(("vocab_size", "size"), [(5, 40), (40, 300), (300, 200)])
@pytest.mark.parametrize("seed", range(4))
def test_both_models_equal_a_naive_one(vocab_size, size, seed):
    train, windows, sizes = draw(seed, vocab_size, size)
    p, q = naive(train, vocab_size)
    pairs = [(int(h), int(w)) for row in windows for h, w in pairwise(row)]
    total = sum(int(sizes[w]) for _, w in pairs)
    first = max(range(vocab_size), key=p)  # max gives the lowest id of equals
    choice = [max(range(vocab_size), key=lambda w: q(h, w)) for h in range(vocab_size)]

    unigram = score_unigram(train, windows, sizes)
    bits = -sum(math.log2(p(w)) for _, w in pairs) / total
    assert unigram.bits_per_byte == pytest.approx(bits, rel=1e-12)
    assert unigram.accuracy == sum(w == first for _, w in pairs) / len(pairs)

    bigram = score_bigram(train, windows, sizes)
    bits = -sum(math.log2(q(h, w)) for h, w in pairs) / total
    assert bigram.bits_per_byte == pytest.approx(bits, rel=1e-12)
    # Rounding can order equal choices either way, so choices compare by worth.
    got = bigram_choice(fit_bigram(train, vocab_size))
    for h in range(vocab_size):
        assert q(h, int(got[h])) == pytest.approx(q(h, choice[h]), rel=1e-12)
    assert bigram.accuracy == sum(w == got[h] for h, w in pairs) / len(pairs)


def test_probabilities_of_every_context_sum_to_one():
    train, _, _ = draw(0, 60, 400)
    model = fit_bigram(train, 60)
    assert fit_unigram(train, 60).sum() == pytest.approx(1, rel=1e-12)
    everything = np.broadcast_to(np.arange(60), (60, 60))
    sums = bigram_probability(model, everything.T, everything).sum(axis=1)
    assert (model.distinct == 0).any()
    np.testing.assert_allclose(sums, 1, rtol=1e-12)


def test_a_frequent_token_can_be_the_choice_where_it_was_never_seen():
    # After 1 came 2 to 9 once each; 0 fills the rest. 8 p(0) > 1 + 8 p(2).
    varied = [token for i in range(2, 10) for token in (1, i)]
    train = np.array([0] * 100 + varied, np.uint16)
    assert bigram_choice(fit_bigram(train, 10))[1] == 0


def test_of_equal_choices_the_lowest_id_is_taken():
    # After 0 came 3 and 2 once each, and they are equally frequent.
    model = fit_bigram(np.array([0, 3, 0, 2, 0], np.uint16), 4)
    assert bigram_choice(model).tolist() == [2, 0, 0, 0]


def test_a_sure_sequence_costs_little_and_is_guessed():
    train = np.tile(np.arange(4, dtype=np.uint16), 500)
    windows = np.tile(np.arange(4, dtype=np.int32), (2, 4))
    sizes = np.ones(4, np.int32)
    bigram = score_bigram(train, windows, sizes)
    assert bigram.accuracy == 1
    assert bigram.bits_per_byte < 0.01
    assert score_unigram(train, windows, sizes).bits_per_byte == pytest.approx(2, 1e-3)


def test_a_large_vocabulary_takes_memory_for_the_pairs_seen():
    rng = np.random.default_rng(0)
    train = rng.integers(0, 50_000, 20_000, dtype=np.uint16)
    model = fit_bigram(train, 50_000)
    assert sum(array.nbytes for array in model) < 2_000_000
    probability = bigram_probability(model, train[:-1], train[1:])
    assert (probability > 0).all()
    assert (probability <= 1).all()


def test_what_cannot_be_scored_is_an_error():
    sizes = np.array([0, 1], np.int32)
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        fit_bigram(np.array([1], np.uint16), 2)
    with pytest.raises(ValueError, match="token 7 is not below vocab_size=2"):
        score_unigram(np.array([1, 7]), np.array([[1, 1]]), sizes)
    with pytest.raises(ValueError, match="no bytes in 1 targets"):
        score_unigram(np.array([1, 1]), np.array([[1, 0]]), sizes)
