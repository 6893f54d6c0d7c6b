"""The n-gram that lines are compared with."""

import numpy as np
import pytest

from jaxnas.benchmarks.longest_match import LongestMatch

#                    0  1  2  3  4  5  6  7  8  9
TOKENS = np.asarray([1, 2, 3, 9, 2, 4, 5, 2, 4, 7], np.uint16)


def slowly(tokens, prompt):
    """The same by looking at every place, for each length from the longest down."""
    for length in range(len(prompt), 0, -1):
        end = list(prompt[-length:])
        after = [
            tokens[at + length]
            for at in range(len(tokens) - length)
            if list(tokens[at : at + length]) == end
        ]
        if after:
            return min(set(after), key=lambda token: (-after.count(token), token))
    return None


def test_the_longest_end_decides_not_the_most_frequent_follower():
    ngram = LongestMatch(TOKENS)
    assert ngram.next_token([2]) == 4  # twice, and 3 once
    assert ngram.next_token([1, 2]) == 3
    assert ngram.next_token([8, 5, 2]) == 4
    assert ngram.next_token([7]) is None  # the last token of all
    assert ngram.next_token([6]) is None  # within the vocabulary, never seen
    assert ngram.next_token([10**6]) is None
    assert ngram.next_token([]) is None


def test_a_text_that_was_seen_goes_on_as_it_did():
    assert LongestMatch(TOKENS).continued([1, 2], 8) == [3, 9, 2, 4, 5, 2, 4, 7]
    assert LongestMatch(TOKENS).continued([1, 2], 3) == [3, 9, 2]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_looking_everywhere_finds(seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, 200)
    ngram = LongestMatch(tokens)
    for _ in range(50):
        prompt = rng.integers(0, 6, rng.integers(1, 9)).tolist()
        assert ngram.next_token(prompt) == slowly(tokens, prompt)
