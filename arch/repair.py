"""The valid combination of genes that is nearest to one that is not."""

import math

import numpy as np


def nearest_valid(table: np.ndarray) -> np.ndarray:
    """The valid cell that is nearest to each cell of a table.

    Args:
      table: bool[...], which combinations of genes are valid; at least one is.

    Returns:
      i32[..., axes], its indices; one step of an axis outweighs all on its right.
    """
    far = np.float64(table.size) * table.size
    distance = np.where(table, 0.0, far)
    nearest = np.moveaxis(np.indices(table.shape, np.int32), 0, -1)
    # The distance is a sum over axes: the least is found axis by axis, the last first.
    for axis in reversed(range(table.ndim)):
        weight = float(math.prod(table.shape[axis + 1 :]))
        places = np.arange(table.shape[axis])
        steps = weight * np.abs(places[:, None] - places)  # [from, to]
        by_place = np.moveaxis(distance, axis, -1)[..., None, :] + steps
        best = np.moveaxis(by_place.argmin(axis=-1), -1, axis)
        distance = np.moveaxis(by_place.min(axis=-1), -1, axis)
        nearest = np.take_along_axis(nearest, best[..., None], axis=axis)
    return nearest
