"""What an architecture of llama.cpp is, as data: settings, tensors, what it takes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from arch import ArchitectureConfig
from arch.layers.norms import EPSILON
from jaxnas.export.native import LAYER, misfits_of, no_misfits

Keys: TypeAlias = dict[str, int | float | bool | str]


class FileRow(NamedTuple):
    """A line of an architecture's table of tensors."""

    ours: tuple[str, ...]  # paths below "params", dotted; rows of several are joined
    theirs: str  # with {layer}, if ours are stacked
    order: Callable[[ArchitectureConfig], np.ndarray] | None = None
    """Which of our matrix's rows is each of theirs: i32[rows]."""
    factor: Callable[[ArchitectureConfig], float] | None = None
    """Theirs is ours times this."""
    change: Callable[[np.ndarray], np.ndarray] | None = None
    """Ours, which is no matrix, to theirs; of one layer."""
    when: str | None = None
    """A field of ours without which there is no such tensor."""

    @property
    def stacked(self) -> bool:
        """True if there is such a tensor for each layer."""
        return LAYER in self.theirs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture of llama.cpp that computes some of our models exactly.

    Attributes:
      name: `general.architecture` in the file.
      takes: field of ours -> the values that it can have.
      sizes: config -> what else does not fit: field -> values that would.
      keys: settings of the file, without the architecture's name before them.
      rows: weights.
      zeros: biases that it wants where ours has none, each beside a ".weight".
      positions: a table of positions, which ours computes where it is not learned.
      untied: it reads a head of its own; a tied model writes its matrix twice.
    """

    name: str
    takes: Mapping[str, tuple]
    keys: Callable[[ArchitectureConfig], Keys]
    rows: tuple[FileRow, ...]
    sizes: Callable[[ArchitectureConfig], dict[str, tuple]] = no_misfits
    zeros: tuple[str, ...] = ()
    positions: str | None = None
    untied: bool = False

    def misfits(self, config: ArchitectureConfig) -> dict[str, tuple]:
        """Fields of a canonical config that it has no value for: -> those it has."""
        return misfits_of(self.takes, config) | self.sizes(config)

    def rows_of(self, config: ArchitectureConfig) -> list[FileRow]:
        """The table for a config: a tied model has no head, few have biases."""
        rows = [x for x in self.rows if x.when is None or getattr(config, x.when)]
        if not config.tie_embeddings:
            return rows
        rows = [row for row in rows if row.ours != HEAD.ours]
        if self.untied:
            rows.append(HEAD._replace(ours=EMBED.ours))
        return rows


def row(ours: str, theirs: str, when: str | None = None) -> FileRow:
    """A line from one tensor of ours, which is theirs as it is."""
    return FileRow((ours,), theirs, when=when)


def sizes_of_all(config: ArchitectureConfig) -> Keys:
    """Settings that every architecture has."""
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_seq_length,
        "embedding_length": config.hidden_dim,
        "block_count": config.num_layers,
    }


# A setting of our own, for an import: llama.cpp's GELU is the tanh form, the model's
# the exact one.
EXACT_GELU = "jaxnas.exact_gelu"
GELU = ("gelu", "geglu")
RMS_EPSILON = "attention.layer_norm_rms_epsilon"
RMS_NORM: Keys = {RMS_EPSILON: EPSILON}
EMBED = row("embed.embedding", "token_embd.weight")
HEAD = row("head.kernel", "output.weight")
LAST_NORM = row("norm.scale", "output_norm.weight")
