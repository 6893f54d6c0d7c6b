"""What ends a search when a candidate reaches it: bounds on metrics, by name."""

import math
from typing import NamedTuple

# Metric -> whether higher is better, and its bounds.
METRICS = {
    "accuracy": (True, 0.0, 1.0),
    "bits_per_byte": (False, 0.0, math.inf),
    "loss": (False, 0.0, math.inf),
    "perplexity": (False, 1.0, math.inf),
    "fitness": (True, -math.inf, math.inf),
}


class Target(NamedTuple):
    """A bound that a metric has to reach."""

    metric: str  # in METRICS
    bound: float

    def met(self, value: float) -> bool:
        """Whether a value of the metric is as good as the bound, or better."""
        higher, *_ = METRICS[self.metric]
        return value >= self.bound if higher else value <= self.bound

    def __str__(self) -> str:
        return f"{self.metric}={self.bound:g}"


def targets_of(text: str) -> tuple[Target, ...]:
    """The targets in "accuracy=0.3,bits_per_byte=2".

    Raises:
      ValueError: one is none, can never be reached, or is named twice.
    """
    targets: dict[str, Target] = {}
    for words in text.split(","):
        name, equals, number = (part.strip() for part in words.partition("="))
        if name not in METRICS or not equals:
            raise ValueError(
                f"{words.strip()!r} is no target: write METRIC=X, of {in_words()}"
            )
        if name in targets:
            raise ValueError(f"{name} is named twice")
        _, least, most = METRICS[name]
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if not (math.isfinite(bound) and least <= bound <= most):
            allowed = "" if least == -math.inf else f" of at least {least:g}"
            allowed += "" if most == math.inf else f", at most {most:g}"
            raise ValueError(f"{name}={number} needs a number{allowed}")
        targets[name] = Target(name, bound)
    return tuple(targets.values())


def in_words() -> str:
    """The metrics, and on which side of a bound each has to be."""
    higher = [name for name, (up, *_) in METRICS.items() if up]
    lower = [name for name, (up, *_) in METRICS.items() if not up]
    return f"{', '.join(higher)} (at least), {', '.join(lower)} (at most)"
