"""Searches side by side: seeds of the same settings as one group, and chance."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnas.presets import is_space_file
from jaxnas.results.record import Record
from jaxnas.results.result import scored
from jaxnas.storage.jsonl import Json

EXACT = 20_000  # ways to share out runs, all of which are counted up to here
# Means as far apart as observed differ by rounding, as a share of the largest value.
_ROUNDING = 1e-9
# What may differ between runs of one group: the seed, and what is kept and shown.
_FREE = ("seed", "top_k", "measure_top", "checkpoint_every", "keep_checkpoints")
# Settings that say where to look; what was found there counts.
_PLACES = ("data", "hardware")


class SeedGroup(NamedTuple):
    """Runs whose settings differ in the seed at most."""

    name: str  # what tells it from the other groups
    runs: list[Record]


def groups_of(records: Sequence[Record]) -> list[SeedGroup]:
    """The runs by their settings, in the order in which they were given."""
    found: dict[tuple, list[Record]] = {}
    settings: dict[tuple, Json] = {}
    for record in records:
        own = _settings(record)
        key = tuple(sorted(own.items()))
        found.setdefault(key, []).append(record)
        settings[key] = own
    every = list(settings.values())
    different = [name for name in every[0] if len({own[name] for own in every}) > 1]

    def name(own: Json) -> str:
        words = [f"{one}={_word(own[one])}" for one in different]
        return " ".join(words) or "the same settings"

    return [SeedGroup(name(settings[key]), runs) for key, runs in found.items()]


def _word(value: object) -> object:
    return "none" if value is None else value


def _settings(record: Record) -> Json:
    """What was asked for, and of what: the same names for every run."""
    decides: Json = {**record.manifest.get("decides", {})}
    own: Json = dataclasses.asdict(record.config)
    for name in (*_FREE, *_PLACES):
        del own[name]
    if is_space_file(own["space"]) and "space_hash" in decides:
        own["space"] = "your own"  # wherever it lies
    planned = () if record.clock is None else record.clock["decided"].get("open", ())
    for name in {*planned, *(["repeats"] if planned else [])} & own.keys():
        own[name] = "planned"  # by the clock: not what was asked for
    for name in ("corpus_hash", "space_hash"):
        own[name] = str(decides[name])[:8] if name in decides else None
    own["backend"] = decides.get("backend")
    own["device"] = (decides.get("hardware_profile") or {}).get("name")
    return own


def test_bits(record: Record) -> float | None:
    """Bits per byte of the winner on the test split; None of an unfinished run."""
    if record.summary is None:
        return None
    return record.summary["final"]["splits"]["test"]["winner"]["bits_per_byte"]


def by_seed(group: SeedGroup) -> list[Record]:
    """A run of each seed: the first that is finished, else the first.

    Another run of a seed is no other draw: counted too, it would make chance look
    smaller than it is.
    """
    found: dict[int, Record] = {}
    for record in sorted(group.runs, key=lambda run: run.summary is None):
        found.setdefault(record.config.seed, record)
    return [*found.values()]


def bits_by_seed(group: SeedGroup) -> dict[int, float]:
    """Bits per byte on the test split, of a finished run of each seed."""
    found = {record.config.seed: test_bits(record) for record in by_seed(group)}
    return {seed: bits for seed, bits in found.items() if bits is not None}


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
    as_far = np.abs(means) >= abs(observed) - _ROUNDING * np.abs(values).max()
    p = (as_far.sum() + extra) / (len(chosen) + extra)
    both = 2 if 2 * size == len(values) else 1
    return Chance(float(observed), float(p), both / ways)
