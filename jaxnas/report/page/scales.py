"""From values to pixels, and the ticks between."""

import math
from collections.abc import Iterable
from typing import NamedTuple

_WIDE = 15.0  # times the least is the greatest: from there on a scale is logarithmic
_ROOM = 0.05  # of a range, left free on either side


class Scale(NamedTuple):
    """A range of values along pixels."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = self.low, self.high, value
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.begin + (value - low) / (high - low) * (self.end - self.begin)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside the range, few enough to be read."""
        if not self.log:
            return _linear(self.low, self.high, most)
        tens = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [step * 10.0**ten for ten in tens for step in steps]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]


def scale_over(
    values: Iterable[float],
    begin: float,
    end: float,
    *,
    log: bool | None = None,
    zero: bool = False,
) -> Scale:
    """A scale that holds all values with some room around them.

    Args:
      values: finite, at least one.
      begin: pixel of the least.
      end: pixel of the greatest.
      log: whether it is logarithmic; by their range if None.
      zero: whether it begins at 0, without room below.
    """
    found = list(values)
    low, high = min(found), max(found)
    if log is None:
        log = not zero and low > 0 and high / low > _WIDE
    if log:
        room = (high / low) ** _ROOM if high > low else 1.2
        return Scale(low / room, high * room, begin, end, True)
    spread = (high - low) or abs(high) or 1.0
    if zero:
        return Scale(min(0.0, low), high + _ROOM * spread, begin, end)
    return Scale(low - _ROOM * spread, high + _ROOM * spread, begin, end)


def _linear(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def figure(value: float) -> str:
    """A tick in words: 0.25, 1.5, 12, 2,000, 1.2M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{round(value, 10):.4g}"
