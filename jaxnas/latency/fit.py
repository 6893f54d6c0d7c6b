"""Rates that come closest to what was measured."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from arch import ArchitectureConfig
from arch.cost import Calibrated, Fit, Workload, decode, prefill, sizes_of, terms_of
from arch.cost.calibrated import TERMS
from jaxnas.latency.configs import PROMPT
from jaxnas.latency.measure import Measured

READINGS: dict[str, Workload] = {
    "prefill": prefill(tokens=PROMPT),
    "decode": decode(past=PROMPT),
}


# Bytes that may stay in the caches, from a core's own to a server's last level; the
# best of them is taken.
CACHES = (0, *(1 << power for power in range(20, 28)))

# Ridge on the terms' rates, where each column of the table has length 1. Over random
# splits of the recorded models of experiments/latency the median error is that without
# it, and the greatest one in decoding smaller.
RIDGE = 0.07


def fit(
    configs: Sequence[ArchitectureConfig], measured: Sequence[Measured]
) -> Calibrated:
    """Non-negative least squares of the relative error, prefill and decode apart.

    Raises:
      ValueError: fewer than two models.
    """
    if len(configs) < 2:
        raise ValueError(f"{len(configs)} models are too few to fit: needs 2")
    fits = {}
    for name, reading in READINGS.items():
        seconds = np.asarray([getattr(times, name).median for times in measured]) / 1e3
        fits[name] = _fit(configs, reading, seconds)
    return Calibrated(**fits)


def _fit(
    configs: Sequence[ArchitectureConfig], reading: Workload, seconds: np.ndarray
) -> Fit:
    """The size of the caches is that which leaves the least squares."""
    tables = {cache: table_of(configs, reading, cache) for cache in CACHES}

    def squares(cache: int) -> float:
        guess = tables[cache] @ fit_rates(tables[cache], seconds)
        return float(((guess / seconds - 1) ** 2).sum())

    cache = min(CACHES, key=squares)
    rates = zip(TERMS, fit_rates(tables[cache], seconds).tolist(), strict=True)
    return Fit(
        rates={term: rate for term, rate in rates if rate > 0},
        cache_bytes=cache,
        error=float(np.median(_left_out(tables[cache], seconds))),
    )


def table_of(
    configs: Sequence[ArchitectureConfig], reading: Workload, cache_bytes: int
) -> np.ndarray:
    """f64[N, TERMS]."""
    terms = [terms_of(sizes_of(config), reading, cache_bytes) for config in configs]
    return np.asarray([[row[name] for name in TERMS] for row in terms], np.float64)


def fit_rates(table: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """f64[TERMS], at least 0: least squares of table @ rates / seconds - 1.

    With a little ridge: terms that grow together share what they explain, so that
    a model in which they differ is not predicted by one of them alone.
    """
    relative = table / seconds[:, None]
    # Columns of one size: a FLOP and a launch differ by ten powers of ten.
    scale = np.maximum(np.linalg.norm(relative, axis=0), 1e-300)
    terms = table.shape[1]
    scaled, _ = nnls(
        np.concatenate([relative / scale, RIDGE * np.eye(terms)]),
        np.concatenate([np.ones(len(seconds)), np.zeros(terms)]),
        maxiter=10_000,
    )
    return scaled / scale


def _left_out(table: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """f64[N], the relative error of each row by the rates of the others."""
    errors = []
    for row in range(len(seconds)):
        others = np.arange(len(seconds)) != row
        rates = fit_rates(table[others], seconds[others])
        errors.append(abs(table[row] @ rates / seconds[row] - 1))
    return np.asarray(errors)
