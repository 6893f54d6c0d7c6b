"""Timing side by side: every contender takes its turn, round after round."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    least: float
    greatest: float


def race(
    contenders: dict[str, Callable[[], object]],
    *,
    seconds: float = 2.0,
    most: int = 30,
    least: int = 3,
) -> dict[str, Timing]:
    """Times calls in turn, so that a busy moment of the machine hits them all.

    Args:
      contenders: name -> call; what it returns is waited for. Each is called once
        before, unmeasured.
      seconds: how long each may take together.
      most: calls of each at most.
      least: calls of each at least.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        jax.block_until_ready(call())
    gc.collect()
    while open_ := [
        name
        for name, found in taken.items()
        if len(found) < least or (len(found) < most and sum(found) < seconds)
    ]:
        for name in open_:
            begin = time.perf_counter()
            jax.block_until_ready(contenders[name]())
            taken[name].append(time.perf_counter() - begin)
    return {
        name: Timing(statistics.median(found), min(found), max(found))
        for name, found in taken.items()
    }
