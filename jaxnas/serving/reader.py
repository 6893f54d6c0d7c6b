"""Reads prompts piece by piece, and not again what the last one began with."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arch.config import ArchitectureConfig
from arch.decoding.generate import bucket
from arch.decoding.loop import read_on
from arch.decoding.unrolled import (
    LayerStates,
    Weights,
    can_rewind,
    init_layers,
    rewound,
)

PIECE = 128  # tokens that are read at once
SNAPSHOTS = 16  # states that are kept of one text


class Reader:
    """What a model remembers of the last text, for the next one to go on from.

    A cache of keys and values holds all its tokens: it is cut where the next text
    parts from it. A recurrent state cannot go back: it is kept after each piece.
    """

    def __init__(
        self,
        config: ArchitectureConfig,
        weights: Weights,
        capacity: int,
        dtype: jax.typing.DTypeLike,
    ) -> None:
        """With nothing read; `capacity` tokens are read and drawn at most."""
        self._about, self._weights = (config, dtype), weights
        self._capacity = capacity + PIECE  # the last piece is padded
        self._ids: list[int] = []
        self._kept: list[tuple[int, LayerStates]] = []  # by tokens read, rising
        self._rewinds = can_rewind(self._empty())

    def read(self, ids: Sequence[int]) -> tuple[jax.Array, LayerStates]:
        """The logits f32[1, V] after i32[T] tokens, and the states, the caller's."""
        done, states = self._known(ids)
        logits = None
        while done < len(ids):
            piece = ids[done : done + PIECE]
            row = np.zeros((1, min(PIECE, bucket(len(piece)))), np.int32)
            row[0, : len(piece)] = piece
            length = np.asarray([len(piece)], np.int32)
            logits, states = read_on(*self._about, self._weights, states, row, length)
            done += len(piece)
            if not self._rewinds:
                self._kept.append((done, _copy(states)))
        assert logits is not None
        self._ids, self._kept = list(ids), self._kept[-SNAPSHOTS:]
        return logits, states

    def take_back(self, drawn: Sequence[int], states: LayerStates) -> None:
        """The states after the text and all that was drawn but the last token."""
        if self._rewinds and not states.read.is_deleted():  # by a call that failed
            self._ids += drawn[:-1]
            self._kept = [(len(self._ids), states)]

    def _known(self, ids: Sequence[int]) -> tuple[int, LayerStates]:
        """How many tokens need not be read again, and the states after them.

        The last token always is: its logits are asked for.
        """
        same = 0
        for old, new in zip(self._ids, ids[:-1], strict=False):
            if old != new:
                break
            same += 1
        if self._rewinds:
            kept, self._kept = self._kept, []
            states = kept[0][1] if kept else self._empty()
            return (same, rewound(states, same)) if kept else (0, states)
        self._kept = [one for one in self._kept if one[0] <= same]
        if not self._kept:
            return 0, self._empty()
        done, states = self._kept[-1]
        return done, _copy(states)

    def _empty(self) -> LayerStates:
        config, dtype = self._about
        return _copy(init_layers(config, 1, self._capacity, dtype))


@jax.jit
def _copy(states: LayerStates) -> LayerStates:
    """Not used up with the original; each array in a place of its own."""
    return jax.tree.map(jnp.copy, states)
