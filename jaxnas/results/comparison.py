"""Searches side by side: seeds of the same settings as one group, and chance."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnas.results.record import Record
from jaxnas.results.result import scored
from jaxnas.storage.jsonl import Json

EXACT = 20_000  # ways to share out runs, all of which are counted up to here
# What may differ between runs of one group, or follows from the rest.
_FREE = ("seed", "hardware_profile", "tokenizer_hash")


class SeedGroup(NamedTuple):
    """Runs whose settings differ in the seed at most."""

    name: str  # what tells it from the other groups
    runs: list[Record]


def groups_of(records: Sequence[Record]) -> list[SeedGroup]:
    """The runs by their settings, in the order in which they were given."""
    found: dict[str, list[Record]] = {}
    settings: dict[str, Json] = {}
    for record in records:
        own = _settings(record)
        key = repr(sorted(own.items()))
        found.setdefault(key, []).append(record)
        settings[key] = own
    every = list(settings.values())
    different = [
        name for name in every[0] if len({repr(own.get(name)) for own in every}) > 1
    ]

    def name(own: Json) -> str:
        words = [f"{one}={own[one]}" for one in different if own.get(one) is not None]
        return " ".join(words) or "the same settings"

    return [SeedGroup(name(settings[key]), runs) for key, runs in found.items()]


def _settings(record: Record) -> Json:
    """What was asked for; what a budget's clock planned is not."""
    decides: Json = {**record.manifest.get("decides", {})}
    clock = record.clock
    planned = () if clock is None else clock["decided"].get("open", ())
    left_out = {*_FREE, *planned, "repeats"} if planned else set(_FREE)
    own = {name: value for name, value in decides.items() if name not in left_out}
    if "corpus_hash" in own:
        own["corpus_hash"] = own["corpus_hash"][:8]
    return own


def test_bits(record: Record) -> float | None:
    """Bits per byte of the winner on the test split; None of an unfinished run."""
    if record.summary is None:
        return None
    return record.summary["final"]["splits"]["test"]["winner"]["bits_per_byte"]


def best_so_far(record: Record) -> np.ndarray:
    """f64[N], the best accuracy on validation after each candidate that succeeded."""
    values = [one.metrics.accuracy for one in scored(record.results)]
    return np.maximum.accumulate(np.asarray(values, np.float64))


class Chance(NamedTuple):
    """How often groups of these sizes differ as much by chance."""

    difference: float  # of the means
    p: float
    least: float  # that groups of these sizes can have


def permutation(first: Sequence[float], second: Sequence[float]) -> Chance:
    """A two-sided permutation test of the means (Fisher 1935; Good 2005).

    All ways to share the values out are counted, or 20,000 drawn ones where there
    are more. Nothing is assumed of how values are distributed.
    """
    values, size = np.asarray([*first, *second], np.float64), len(first)
    observed = values[:size].mean() - values[size:].mean()
    ways = math.comb(len(values), size)
    if ways <= EXACT:
        chosen = np.asarray(list(itertools.combinations(range(len(values)), size)))
        extra = 0
    else:
        random = np.random.default_rng(0)
        chosen = np.asarray(
            [random.permutation(len(values))[:size] for _ in range(EXACT)]
        )
        extra = 1  # the observed one is a way too
    sums = values[chosen].sum(axis=1)
    means = sums / size - (values.sum() - sums) / (len(values) - size)
    as_far = np.abs(means) >= abs(observed) * (1 - 1e-12)
    p = (as_far.sum() + extra) / (len(chosen) + extra)
    both = 2 if 2 * size == len(values) else 1
    return Chance(float(observed), float(p), both / ways)
