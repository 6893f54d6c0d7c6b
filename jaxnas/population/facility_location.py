"""Facility location: what to open, so that serving and opening cost the least.

A local search (Arya et al. 2004, doi:10.1137/S0097539702416402): add, drop or
swap one option at a time while that is cheaper.
"""

import numpy as np

NEVER = 1e9  # cost of a demand at an option that does not serve it
_STARTS = 8  # single options to search from


def locate(
    cost: np.ndarray, opening: np.ndarray, free: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Opens some of O options for D demands.

    Args:
      cost: f64[O, D], of each demand at each option; `NEVER` where it is not served.
      opening: f64[O], of each option.
      free: bool[O], options that are open at no cost.
      start: bool[O], to search from, besides the cheapest single options.

    Returns:
      i64[P], the open options, in order; i64[D], each demand's place among them.
    """
    alone = np.minimum(cost, cost[free].min(axis=0, initial=NEVER)).sum(axis=1)
    single = np.eye(len(cost), dtype=bool)[np.argsort(alone + opening)]
    found = [
        _improved(begin | free, free, cost, opening)
        for begin in (start, *single[:_STARTS])
    ]
    _, opened = min(found, key=lambda one: one[0])
    at = np.flatnonzero(opened)
    return at, np.argmin(cost[at], axis=0)


def _improved(
    opened: np.ndarray, free: np.ndarray, cost: np.ndarray, opening: np.ndarray
) -> tuple[float, np.ndarray]:
    """Adds, drops and swaps options, one at a time, while that is cheaper."""

    def total(opened: np.ndarray) -> float:
        served = cost[opened].min(axis=0, initial=NEVER).sum()
        return float(served + opening[opened].sum())

    now = total(opened)
    while True:
        closable = np.flatnonzero(opened & ~free)
        kept = np.repeat(opened[None], 1 + len(closable), axis=0)
        kept[np.arange(1, len(kept)), closable] = False
        served = np.stack([cost[one].min(axis=0, initial=NEVER) for one in kept])
        spent = np.stack([opening[one].sum() for one in kept])
        # The last column adds nothing.
        added = np.minimum(served[:, None], cost[None]).sum(-1) + opening
        totals = np.concatenate([added, served.sum(-1)[:, None]], 1) + spent[:, None]
        out, at = np.unravel_index(np.argmin(totals), totals.shape)
        if not totals[out, at] < now * (1 - 1e-9):
            return now, opened
        opened = kept[out].copy()
        if at < len(opened):
            opened[at] = True
        now = total(opened)
