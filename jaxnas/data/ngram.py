"""N-gram baselines: what a network has to beat on the same tokens."""

from typing import NamedTuple

import numpy as np


class NgramScore(NamedTuple):
    """Quality of an n-gram baseline over the targets of some windows."""

    bits_per_byte: float  # -log2 p summed over targets / bytes of the targets
    accuracy: float  # share of targets that are the baseline's first choice


class Bigram(NamedTuple):
    """Counts of a token after a token, interpolated with the unigram.

    p(w | h) = (c(h, w) + T(h) p(w)) / (c(h) + T(h)), where T(h) is the number of
    distinct tokens seen after h (Witten and Bell 1991, method C). A context that
    was never seen leaves p(w).
    """

    unigram: np.ndarray  # f64[V], sums to 1
    pairs: np.ndarray  # i64[P], sorted: h * V + w of each pair seen
    counts: np.ndarray  # i64[P]
    total: np.ndarray  # i64[V], c(h)
    distinct: np.ndarray  # i64[V], T(h)


def fit_unigram(train: np.ndarray, vocab_size: int) -> np.ndarray:
    """f64[vocab_size]: probabilities with one added to every count."""
    counts = np.bincount(train, minlength=vocab_size)
    if counts.size > vocab_size:
        raise ValueError(f"a token {counts.size - 1} is not below {vocab_size=}")
    return (counts + 1) / (train.size + vocab_size)


def fit_bigram(train: np.ndarray, vocab_size: int) -> Bigram:
    """Takes memory for the pairs seen, not for all vocab_size**2."""
    if train.size < 2:
        raise ValueError(f"a bigram needs at least 2 tokens, got {train.size}")
    unigram = fit_unigram(train, vocab_size)
    flat = train[:-1].astype(np.int64) * vocab_size + train[1:]
    pairs, counts = np.unique(flat, return_counts=True)
    return Bigram(
        unigram=unigram,
        pairs=pairs,
        counts=counts,
        total=np.bincount(train[:-1], minlength=vocab_size),
        distinct=np.bincount(pairs // vocab_size, minlength=vocab_size),
    )


def bigram_probability(
    model: Bigram, context: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """f64: p(target | context), elementwise over integer arrays of one shape."""
    key = context.astype(np.int64) * model.unigram.size + target
    index = np.minimum(np.searchsorted(model.pairs, key), model.pairs.size - 1)
    count = np.where(model.pairs[index] == key, model.counts[index], 0)
    distinct, prior = model.distinct[context], model.unigram[target]
    seen = np.maximum(model.total[context] + distinct, 1)
    return np.where(distinct > 0, (count + distinct * prior) / seen, prior)


def bigram_choice(model: Bigram) -> np.ndarray:
    """i64[V]: the likeliest token after each token, the lowest id of equals."""
    size = model.unigram.size
    first = int(np.argmax(model.unigram))
    choice = np.full(size, first)
    context, target = np.divmod(model.pairs, size)
    score = model.counts + model.distinct[context] * model.unigram[target]
    order = np.lexsort((target, -score, context))
    heads = order[np.unique(context[order], return_index=True)[1]]
    context, target, score = context[heads], target[heads], score[heads]
    # Of the tokens not seen after a context, none beats the unigram's first.
    unseen = model.distinct[context] * model.unigram[first]
    better = (unseen > score) | ((unseen == score) & (first < target))
    choice[context] = np.where(better, first, target)
    return choice


def score_unigram(
    train: np.ndarray, windows: np.ndarray, token_bytes: np.ndarray
) -> NgramScore:
    """Fits on `train` (ids[M]), scores each `windows[:, 1:]` (ids[N, T + 1]).

    Args:
      train: token ids, below V.
      windows: token ids, below V; the first of each window is only context.
      token_bytes: i32[V], bytes of each id.
    """
    unigram = fit_unigram(train, token_bytes.size)
    targets = windows[:, 1:]
    hits = targets == np.argmax(unigram)
    return _score(unigram[targets], hits, token_bytes[targets])


def score_bigram(
    train: np.ndarray, windows: np.ndarray, token_bytes: np.ndarray
) -> NgramScore:
    """As `score_unigram`, with each target's one token of context."""
    model = fit_bigram(train, token_bytes.size)
    contexts, targets = windows[:, :-1], windows[:, 1:]
    hits = targets == bigram_choice(model)[contexts]
    probability = bigram_probability(model, contexts, targets)
    return _score(probability, hits, token_bytes[targets])


def _score(probability: np.ndarray, hits: np.ndarray, size: np.ndarray) -> NgramScore:
    if not size.sum():
        raise ValueError(f"windows hold no bytes in {size.size} targets")
    bits = -np.log2(probability).sum()
    return NgramScore(float(bits / size.sum()), float(hits.mean()))
