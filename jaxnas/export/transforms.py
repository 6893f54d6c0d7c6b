"""How a tensor of ours becomes one of theirs, and back again.

A transform works on one layer's tensors, or on tensors without layers. It only
moves values, so what is exported and read back is the same to the bit.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from arch.config import MAMBA_STATE


class Transform(NamedTuple):
    """A pair of functions that undo each other."""

    export: Callable[..., np.ndarray]  # (*ours) -> theirs
    restore: Callable[..., tuple[np.ndarray, ...]]  # (theirs, *shapes) -> ours


def _moved(
    export: Callable[[np.ndarray], np.ndarray],
    restore: Callable[[np.ndarray], np.ndarray],
) -> Transform:
    """A transform of one tensor, from functions that move its values."""
    return Transform(export, lambda theirs, shape: (restore(theirs).reshape(shape),))


def _matrix(weights: np.ndarray, inputs: int) -> np.ndarray:
    """Ours as [summed inputs, outputs]; the first `inputs` axes are summed over."""
    return weights.reshape(math.prod(weights.shape[:inputs]), -1)


def conv1d(inputs: int = 1) -> Transform:
    """A kernel of GPT-2's Conv1D: [inputs, outputs], as ours."""
    return _moved(lambda ours: _matrix(ours, inputs), lambda theirs: theirs)


def linear(inputs: int = 1) -> Transform:
    """A weight of nn.Linear: [outputs, inputs]."""
    return _moved(lambda ours: _matrix(ours, inputs).T, lambda theirs: theirs.T)


def _halves(kernel: np.ndarray) -> np.ndarray:
    """Channels of each head [..., H]: 0, 1, 2, ... -> 0, 2, 4, ..., 1, 3, 5, ..."""
    return np.concatenate([kernel[..., ::2], kernel[..., 1::2]], axis=-1)


def _pairs(kernel: np.ndarray) -> np.ndarray:
    """The inverse of `_halves`."""
    return np.stack(np.split(kernel, 2, axis=-1), axis=-1).reshape(kernel.shape)


def _steps_first(columns: np.ndarray) -> np.ndarray:
    """[E, B C step] -> [E, step B C]."""
    return np.roll(columns, -2 * MAMBA_STATE, axis=1)


def _steps_last(columns: np.ndarray) -> np.ndarray:
    """The inverse of `_steps_first`."""
    return np.roll(columns, 2 * MAMBA_STATE, axis=1)


def fused(part: Transform, axis: int) -> Transform:
    """Tensors behind each other along an axis of theirs."""

    def export(*ours: np.ndarray) -> np.ndarray:
        return np.concatenate([part.export(tensor) for tensor in ours], axis=axis)

    def restore(theirs: np.ndarray, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        sizes = [part.export(np.zeros(shape)).shape[axis] for shape in shapes]
        pieces = np.split(theirs, np.cumsum(sizes)[:-1], axis=axis)
        pairs = zip(pieces, shapes, strict=True)
        return tuple(part.restore(piece, shape)[0] for piece, shape in pairs)

    return Transform(export, restore)


def heads_apart(rotary: int) -> Transform:
    """Queries, keys and values of one head behind each other, as GPT-NeoX has them.

    Args:
      rotary: channels of a head that turn, channels i and i + rotary / 2 together.
    """

    def turned(order: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
        return np.concatenate([order(x[..., :rotary]), x[..., rotary:]], axis=-1)

    def export(*ours: np.ndarray) -> np.ndarray:
        q, k, v = ours
        joined = np.stack([turned(_halves, q), turned(_halves, k), v], axis=-2)
        return joined.reshape(-1) if q.ndim == 2 else LINEAR.export(joined)

    def restore(theirs: np.ndarray, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        *before, heads, size = shapes[0]
        parts = theirs.T.reshape(*before, heads, 3, size)
        q, k, v = (parts[..., at, :] for at in range(3))
        return turned(_pairs, q), turned(_pairs, k), v

    return Transform(export, restore)


_SPLIT = 4  # parts of CodeGen's heads, each with its queries, values and keys


def _parts_joined(*ours: np.ndarray) -> np.ndarray:
    """[D, N, H] of queries, keys, values -> [3 N H, D]."""
    q, k, v = (x.reshape(len(x), _SPLIT, -1) for x in ours)
    return LINEAR.export(np.concatenate([q, v, k], axis=-1))


def _parts_split(
    theirs: np.ndarray, *shapes: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    """The inverse of `_parts_joined`."""
    q, v, k = np.split(theirs.T.reshape(shapes[0][0], _SPLIT, -1), 3, axis=-1)
    return tuple(x.reshape(s) for x, s in zip((q, k, v), shapes, strict=True))


SAME = _moved(lambda ours: ours, lambda theirs: theirs)
LINEAR, CONV1D = linear(), conv1d()
# [N, H, D] -> [D, N H], [N H, D]: what leaves the heads.
LINEAR_OUT, CONV1D_OUT = linear(2), conv1d(2)
# Ours turns channels 2i and 2i+1 of a head together, theirs i and i + H/2.
ROTARY = Transform(
    lambda ours: LINEAR.export(_halves(ours)),
    lambda theirs, shape: (_pairs(LINEAR.restore(theirs, shape)[0]),),
)
# Biases: [N, H] -> [N H], in the same orders.
BIAS = _moved(lambda ours: ours.reshape(-1), lambda theirs: theirs)
ROTARY_BIAS = Transform(
    lambda ours: _halves(ours).reshape(-1),
    lambda theirs, shape: (_pairs(theirs.reshape(shape)),),
)
BIAS_FUSED = fused(BIAS, axis=0)
IN_PARTS = Transform(_parts_joined, _parts_split)
LINEAR_FUSED, CONV1D_FUSED = fused(LINEAR, axis=0), fused(CONV1D, axis=1)
# Mamba: [4, E] -> [E, 1, 4], and [E, B C step] -> [step B C, E].
TAPS = _moved(lambda ours: ours.T[:, None], lambda theirs: theirs[:, 0].T)
STEPS_FIRST = _moved(
    lambda ours: _steps_first(ours).T, lambda theirs: _steps_last(theirs.T)
)
# RWKV: [D] -> [1, 1, D].
ROW = _moved(lambda ours: ours[None, None], lambda theirs: theirs)
