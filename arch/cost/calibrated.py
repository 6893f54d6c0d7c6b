"""Latency by rates that were fitted to a device's clock.

A forward pass is a sum of terms, each times a rate: seconds of a call, of a launch,
a FLOP and a byte of each kind of op, and of a byte of weights beyond those that
stay in the caches from one pass to the next. Scans differ from family to family in
how they are run, and so have rates of their own, a step for a launch. What is
described is the model as XLA runs it here: weights are read as float32, however
they are stored.
"""

import dataclasses
from typing import Any

from arch.cost.ops import list_ops
from arch.cost.parts import KINDS, Op
from arch.cost.sizes import Amount, Count, Sizes
from arch.cost.totals import larger
from arch.cost.workload import Workload

VALUE_BYTES = 4  # of a weight and of an activation, as they are executed

SCANS = ("scan", "wkv", "step", "states")  # the names of the ops of kind "scan"
GROUPS = (*(kind for kind in KINDS if kind != "scan"), *SCANS)
WORK = ("launches", "flops", "bytes")
CALL = "call"  # once a forward pass
UNCACHED = "uncached bytes"  # of weights that the caches have no room for
TERMS = (CALL, UNCACHED, *(f"{group} {work}" for group in GROUPS for work in WORK))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """What was fitted to the clock for one reading.

    Raises:
      ValueError: a rate with an unknown name, or a figure below zero.
    """

    rates: dict[str, float]  # of TERMS, seconds each; those of 0 left out
    cache_bytes: int  # of weights, those beyond are UNCACHED
    error: float  # median relative error of models left out of the fit

    def __post_init__(self) -> None:
        for term, rate in self.rates.items():
            if term not in TERMS or not 0 <= rate < float("inf"):
                raise ValueError(
                    f"rate {term!r}={rate!r} is not allowed: needs a number of at "
                    f"least 0 for one of {', '.join(TERMS)}"
                )
        for name in ("cache_bytes", "error"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value!r} is not allowed: needs at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """How fast a device was found to be."""

    prefill: Fit
    decode: Fit

    def of(self, reading: Workload) -> Fit:
        """What holds for one new token, or for several."""
        return self.decode if reading.tokens == 1 else self.prefill

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibrated":
        """The inverse of `dataclasses.asdict`.

        Raises:
          TypeError, AttributeError: it is not of that form.
          ValueError: as `Fit`.
        """
        return cls(**{name: Fit(**value) for name, value in values.items()})


def terms_of(
    sizes: Sizes, reading: Workload, cache_bytes: int = 0
) -> dict[str, Amount]:
    """How much there is of each of TERMS; columns for columns."""
    terms: dict[str, Amount] = {name: int(name == CALL) for name in TERMS}
    weights: Count = 0
    for op in list_ops(sizes, reading):
        for work, amount in zip(WORK, _work(op), strict=True):
            name = f"{group_of(op)} {work}"
            terms[name] = terms[name] + op.count * amount  # columns may grow axes
        weights = weights + op.count * _weight_values(op) * VALUE_BYTES
    terms[UNCACHED] = larger(weights - cache_bytes, 0 * weights)
    return terms


def calibrated_seconds(
    sizes: Sizes, calibrated: Calibrated, reading: Workload
) -> Amount:
    """Seconds of a forward pass; float64 columns for columns."""
    fit = calibrated.of(reading)
    terms = terms_of(sizes, reading, fit.cache_bytes)
    seconds: Amount = 0.0
    for name in TERMS:  # in one order: columns and configs round alike
        seconds = seconds + fit.rates.get(name, 0.0) * terms[name]
    return seconds


def group_of(op: Op) -> str:
    """Whose rates an op has: its kind's, or a scan's own."""
    return op.name if op.kind == "scan" else op.kind


def executed_bytes(op: Op) -> Count:
    """Bytes of weights and activations as they are executed."""
    return (_weight_values(op) + op.read + op.written + op.sums) * VALUE_BYTES


def _weight_values(op: Op) -> Count:
    weights = op.weights if op.streamed is None else op.streamed
    return sum(weight.rows * weight.row_length for weight in weights)


def _work(op: Op) -> tuple[Amount, Amount, Amount]:
    return op.steps, op.flops, executed_bytes(op)
