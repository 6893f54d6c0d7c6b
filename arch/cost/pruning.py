"""How many channels structured pruning keeps: the one definition."""

from typing import overload

import numpy as np

# Kept counts are multiples of a quantised block, so that no row of a pruned
# matrix ends in a block that is partly padding.
CHANNEL_MULTIPLE = 32

# Ratios are read to one part in a million: as an integer, 1 - 0.4 is exact.
_PARTS = 1_000_000


@overload
def kept_channels(channels: int, ratio: float) -> int: ...
@overload
def kept_channels(channels: np.ndarray, ratio: float | np.ndarray) -> np.ndarray: ...
@overload
def kept_channels(channels: int, ratio: np.ndarray) -> np.ndarray: ...


def kept_channels(
    channels: int | np.ndarray, ratio: float | np.ndarray
) -> int | np.ndarray:
    """Inner channels left after removing the share `ratio` of them.

    The nearest multiple of 32 to channels * (1 - ratio), a half rounded up; at
    least min(channels, 32), at most channels. A ratio of 0 keeps them all.

    Args:
      channels: at least 1; an int, or an int64 array.
      ratio: in [0, 1); a float, or an array that broadcasts with channels.

    Returns:
      An int if both are scalars, else an int64 array.
    """
    total = np.asarray(channels, np.int64)
    left = _PARTS - np.rint(np.multiply(ratio, _PARTS)).astype(np.int64)
    block = CHANNEL_MULTIPLE * _PARTS
    nearest = (total * left + block // 2) // block * CHANNEL_MULTIPLE
    kept = np.minimum(np.maximum(nearest, CHANNEL_MULTIPLE), total)
    kept = np.where(left == _PARTS, total, kept)
    return kept if kept.ndim else int(kept)
