"""How much better a model is than another on the same windows, and how surely."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np

from jaxnas.storage.jsonl import Json
from jaxnas.training.scoring import WindowSums


class Quality(TypedDict):
    """A model's metrics on a split, as far as others read them."""

    bits_per_byte: float
    accuracy: float


def quality(metrics: Mapping[str, Any]) -> Quality:
    """All the metrics by name, as a summary holds them."""
    return cast(Quality, dict(metrics))


class Obvious(TypedDict):
    """An obvious model that was trained beside the winner.

    It trained for `steps`, the winner for the `planned` ones: others where a budget's
    clock ended the one or the other. Without metrics there is a reason.
    """

    config: Json
    steps: int
    planned: int
    reason: str | None
    splits: dict[str, Quality]


class SplitGain(TypedDict):
    """Bits per byte saved on a split; the error is None below two windows."""

    bits_per_byte: float
    standard_error: float | None
    windows: int


class Gain(TypedDict):
    """What the winner gains over an obvious model, by its place among them."""

    over: int
    splits: dict[str, SplitGain]


def split_gain(winner: WindowSums, other: WindowSums) -> SplitGain:
    """Bits per byte of the other less those of the winner, on the same windows.

    The standard error is that of the paired difference: a ratio of sums over
    windows, to first order (Cochran 1977, section 6.3). It covers the choice of the
    windows and not the seeds of the trainings.
    """
    saved = (other.nats - winner.nats) / math.log(2)
    number, per_byte = len(saved), saved.sum() / winner.bytes.sum()
    error = None
    if number > 1:
        beside = saved - per_byte * winner.bytes
        variance = number / (number - 1) * np.square(beside).sum()
        error = float(math.sqrt(variance) / winner.bytes.sum())
    return {
        "bits_per_byte": float(per_byte),
        "standard_error": error,
        "windows": number,
    }


def best_gain(
    winner: Mapping[str, WindowSums], others: Sequence[Mapping[str, WindowSums]]
) -> Gain | None:
    """The gain over the best of the others by bits per byte on validation.

    Args:
      winner: by split.
      others: by split; nothing of those that failed.

    Returns:
      None if all failed.
    """
    known = {place: sums for place, sums in enumerate(others) if sums}
    if not known:
        return None
    best = min(known, key=lambda place: known[place]["validation"].nats.sum())
    splits = {
        split: split_gain(sums, known[best][split]) for split, sums in winner.items()
    }
    return {"over": best, "splits": splits}
