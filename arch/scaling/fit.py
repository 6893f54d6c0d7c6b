"""Fits a scaling law to measured losses.

Robust regression on the logarithm of the loss, as Hoffmann et al. 2022
(arXiv:2203.15556, Approach 3) do it: a Huber loss, several starts, the best
kept. What rows do not tell stays where it was: exponents near published ones,
corrections near none.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import least_squares

from arch.config import ArchitectureConfig
from arch.cost.sizes import Count, sizes_of
from arch.cost.totals import total_parameters
from arch.families import FAMILIES
from arch.scaling.laws import ScalingLaw
from arch.scaling.predicted_loss import Capacity, config_capacity, expected_loss

FOLDS = 5
FEWEST_ROWS = 2 * FOLDS

# Errors of the logarithm beyond this count by their size, not by its square.
_HUBER = 0.01
# A coefficient that is 1 from where it was weighs as one row that is 1 % off.
_PRIOR = 0.01
_EXPONENT = 0.35  # of both terms: about that of Hoffmann's law and of its refit

# The unknowns in order: ln E; ln of a term at the rows' geometric mean and its
# exponent, for parameters and for tokens; depth; pruning; ln of rounding; families.
_LEAST = np.array(
    [-20, -20, 0.01, -20, 0.01, -0.9, 0, -5] + [-3] * len(FAMILIES), float
)
_MOST = np.array([5, 5, 2, 5, 2, 1.9, 5, 5] + [3] * len(FAMILIES), float)
_EXPONENTS = [2, 4]
_WITH_PRIOR = [*_EXPONENTS, *range(5, len(_LEAST))]
# Shares of the loss that no parameter and no token removes, to start from.
_STARTS = (0.3, 0.8)


class MeasuredLoss(NamedTuple):
    """One measured loss."""

    config: ArchitectureConfig
    tokens: float  # trained on, those of all epochs
    loss: float  # nats a token, of the exported model


@dataclasses.dataclass(frozen=True, kw_only=True)
class LawFit:
    """A fitted law, and how far it can be trusted.

    Errors are mean absolute errors of the logarithm of the loss, on rows that
    the fit did not see: each fifth of the rows is left out once. `largest_error` is
    of the fifth with the most parameters, by a fit to all smaller ones: how far the
    law extrapolates; None where those are of one size.
    """

    law: ScalingLaw
    rows: int
    error: float
    constant_error: float  # of one loss for all
    total_error: float  # of the same law on total parameters
    largest_error: float | None


def fit(rows: Sequence[MeasuredLoss]) -> LawFit:
    """Fits the law's coefficients and corrections to measured losses.

    Raises:
      ValueError: fewer than 10 rows, models of one size only, or as `fit_law`.
    """
    if len(rows) < FEWEST_ROWS:
        raise ValueError(f"{len(rows)} rows are too few: a fit needs {FEWEST_ROWS}")
    capacity = _columns([config_capacity(row.config) for row in rows])
    total = capacity._replace(
        trained=_totals(rows, pruned=False), kept=_totals(rows, pruned=True)
    )
    if np.ptp(capacity.kept) == 0:
        raise ValueError("models of one size only: no law can be fitted")
    tokens = np.asarray([row.tokens for row in rows], np.float64)
    losses = np.asarray([row.loss for row in rows], np.float64)
    return LawFit(
        law=fit_law(capacity, tokens, losses),
        rows=len(rows),
        error=_held_out_error(capacity, tokens, losses),
        constant_error=_constant_error(losses),
        total_error=_held_out_error(total, tokens, losses),
        largest_error=_largest_error(capacity, tokens, losses),
    )


def fit_law(capacity: Capacity, tokens: np.ndarray, losses: np.ndarray) -> ScalingLaw:
    """The law that fits best; all columns are float64[rows].

    Where all rows have read the same number of tokens, the law has no term of
    tokens: what they leave unlearnt is in its constant.

    Raises:
      ValueError: a loss or a number of tokens that is no finite number above 0.
    """
    for name, values in (("loss", losses), ("number of tokens", tokens)):
        if not np.all(np.isfinite(values) & (values > 0)):
            raise ValueError(f"every {name} must be a finite number above 0")
    prior = np.zeros(len(_LEAST))
    prior[_EXPONENTS] = _EXPONENT
    law_of = _law_maker(capacity.kept, tokens)

    def residuals(x: np.ndarray) -> np.ndarray:
        misses = _log_misses(law_of(x), capacity, tokens, losses)
        return np.concatenate([misses, _PRIOR * (x - prior)[_WITH_PRIOR]])

    results = [
        least_squares(
            residuals,
            _start(share, prior, losses),
            bounds=(_LEAST, _MOST),
            loss="huber",
            f_scale=_HUBER,
        )
        for share in _STARTS
    ]
    return law_of(min(results, key=lambda result: result.cost).x)


def log_error(
    law: ScalingLaw, capacity: Capacity, tokens: np.ndarray, losses: np.ndarray
) -> float:
    """Mean absolute error of the logarithm of the loss; columns as `fit_law`."""
    return float(np.mean(np.abs(_log_misses(law, capacity, tokens, losses))))


def take(capacity: Capacity, rows: np.ndarray) -> Capacity:
    """Some rows of columns, by a mask or by indices."""
    return jax.tree.map(lambda column: column[rows], capacity)


def _log_misses(
    law: ScalingLaw, capacity: Capacity, tokens: np.ndarray, losses: np.ndarray
) -> np.ndarray:
    return np.log(expected_loss(capacity, tokens, law)) - np.log(losses)


def _law_maker(
    parameters: Count, tokens: np.ndarray
) -> Callable[[np.ndarray], ScalingLaw]:
    """From the unknowns to a law."""
    middle = [float(np.exp(np.mean(np.log(x)))) for x in (parameters, tokens)]
    varies = float(np.ptp(tokens) > 0)

    def law_of(x: np.ndarray) -> ScalingLaw:
        constant, scale, exponent, token_scale, token_exponent, depth, pruning = x[:7]
        return ScalingLaw(
            name="fitted",
            source=f"fitted to {len(tokens)} measured losses",
            counts="non-embedding",
            irreducible=float(np.exp(constant)),
            parameter_scale=float(np.exp(scale) * middle[0] ** exponent),
            parameter_exponent=float(exponent),
            token_scale=float(np.exp(token_scale) * middle[1] ** token_exponent)
            * varies,
            token_exponent=float(token_exponent) * varies,
            parameter_range=_range(parameters),
            token_range=_range(tokens),
            rows=len(tokens),
            depth=float(depth),
            pruning=float(pruning),
            rounding=float(np.exp(x[7])),
            families=tuple(map(float, x[8:])),
        )

    return law_of


def _start(share: float, prior: np.ndarray, losses: np.ndarray) -> np.ndarray:
    # What the constant leaves, both terms have in equal parts.
    constant = share * np.min(losses)
    x = prior.copy()
    x[0] = np.log(constant)
    x[[1, 3]] = np.log((np.median(losses) - constant) / 2)
    return np.clip(x, _LEAST + 1e-6, _MOST - 1e-6)


def _folds(rows: int) -> list[np.ndarray]:
    """Masks of the rows left out together, bool[rows]."""
    return [np.arange(rows) % FOLDS == fold for fold in range(FOLDS)]


def _held_out_error(
    capacity: Capacity, tokens: np.ndarray, losses: np.ndarray
) -> float:
    misses = np.empty(len(losses))
    for out in _folds(len(losses)):
        law = fit_law(take(capacity, ~out), tokens[~out], losses[~out])
        misses[out] = _log_misses(law, take(capacity, out), tokens[out], losses[out])
    return float(np.mean(np.abs(misses)))


def _largest_error(
    capacity: Capacity, tokens: np.ndarray, losses: np.ndarray
) -> float | None:
    kept = np.asarray(capacity.kept)
    out = kept >= np.quantile(kept, 1 - 1 / FOLDS)
    if out.all() or np.ptp(kept[~out]) == 0:
        return None
    law = fit_law(take(capacity, ~out), tokens[~out], losses[~out])
    return log_error(law, take(capacity, out), tokens[out], losses[out])


def _constant_error(losses: np.ndarray) -> float:
    logs = np.log(losses)
    misses = np.empty(len(losses))
    for out in _folds(len(losses)):
        misses[out] = np.median(logs[~out]) - logs[out]
    return float(np.mean(np.abs(misses)))


def _columns(capacities: Sequence[Capacity]) -> Capacity:
    """Capacities of one model each as float64[rows] columns."""
    return jax.tree.map(lambda *values: np.asarray(values, np.float64), *capacities)


def _totals(rows: Sequence[MeasuredLoss], *, pruned: bool) -> np.ndarray:
    sizes = (sizes_of(row.config, pruned=pruned) for row in rows)
    return np.asarray([total_parameters(own) for own in sizes], np.float64)


def _range(values: Count) -> tuple[float, float]:
    return float(np.min(values)), float(np.max(values))
