"""What a class of `transformers` is, as data: fields, tensors, and what it takes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from arch import ArchitectureConfig
from arch.families import VARIANTS
from jaxnas.export.transforms import SAME, Transform
from jaxnas.storage.jsonl import Json

LAYER = "{layer}"


class Row(NamedTuple):
    """A line of a class's table of weights."""

    ours: tuple[str, ...]  # paths below "params", dotted
    theirs: str  # with {layer}, if ours are stacked
    transform: Transform
    when: str | None = None  # a field of ours without which there is no such tensor
    turned: Callable[[ArchitectureConfig], Transform] | None = None
    """The transform, where it depends on what of a head is rotated."""

    @property
    def stacked(self) -> bool:
        """True if there is such a tensor for each layer."""
        return LAYER in self.theirs


def row(
    ours: str | tuple[str, ...],
    theirs: str,
    transform: Transform = SAME,
    when: str | None = None,
) -> Row:
    """A line from one tensor of ours, or from several that are fused."""
    return Row((ours,) if isinstance(ours, str) else ours, theirs, transform, when)


class Field(NamedTuple):
    """A line of a class's table of settings."""

    ours: str  # of ArchitectureConfig, a field or a property
    theirs: str
    names: Mapping[str, str] = {}  # our word -> theirs, where words differ
    real: bool = False  # any number, else a whole one
    written: bool = True  # as it is; else by another setting
    optional: bool = False  # null is a value

    def export(self, config: ArchitectureConfig) -> object:
        """The value in their config.json."""
        value = getattr(config, self.ours)
        return self.names[value] if self.names else value


def misfits_of(
    takes: Mapping[str, tuple], config: ArchitectureConfig
) -> dict[str, tuple]:
    """Fields of a config whose values are not among those taken: -> those taken.

    A field of `VARIANTS` that is not in `takes` has to be ours; there, no values
    are any.
    """
    every = {name: (value,) for name, value in VARIANTS.items()} | dict(takes)
    return {
        field: values
        for field, values in every.items()
        if values and getattr(config, field) not in values
    }


# In `takes`: any.
ANY: tuple[()] = ()


def no_misfits(config: ArchitectureConfig) -> dict[str, tuple]:
    """The `sizes` of a class that takes every size."""
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NativeClass:
    """A class that computes some of our models exactly.

    Attributes:
      name: how it is spoken of.
      model_type: its name in config.json.
      architecture: the Python class for language modelling.
      takes: field of ours -> the values that it can have.
      sizes: config -> what else does not fit: field -> values that would.
      fields: settings that depend on ours; each is read back and compared.
      constants: settings that it needs to compute our function.
      required: constants that are spelled in several ways; `normalise` brings
        them to these names, `written` holds them as transformers reads them.
      written: settings that are not read back; a callable gets the config.
      absent: what transformers assumes where config.json has no value (or null,
        or "auto"), if it is not the constant; a callable gets the other values.
      normalise: brings the spellings of a config.json to one.
      rows: weights.
      zeros: biases that ours does not have, each beside a ".weight".
      positions: a table of positions that ours computes.
      guessed: whether there are biases and learned positions is not among the
        settings: the tensors say it.
      inputs_first: whether its matrices lie as ours; else their outputs come first.
      buffers: regular expressions of tensors that old checkpoints hold and that
        are no weights.
    """

    name: str
    model_type: str
    architecture: str
    takes: Mapping[str, tuple]
    fields: tuple[Field, ...]
    rows: tuple[Row, ...]
    sizes: Callable[[ArchitectureConfig], dict[str, tuple]] = no_misfits
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    written: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    absent: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    normalise: Callable[[Json], Json] = lambda values: values
    zeros: tuple[str, ...] = ()
    positions: str | None = None
    guessed: bool = False
    inputs_first: bool = False
    buffers: tuple[str, ...] = ()

    def misfits(self, config: ArchitectureConfig) -> dict[str, tuple]:
        """Fields of a canonical config that the class has no value for.

        Returns:
          field -> the values that it could have; empty if the class is exact.
        """
        return misfits_of(self.takes, config) | self.sizes(config)

    def rows_of(self, config: ArchitectureConfig) -> list[Row]:
        """The table for a config: a tied model has no head, few have biases."""
        return [
            row if row.turned is None else row._replace(transform=row.turned(config))
            for row in self.rows
            if not (config.tie_embeddings and row.ours == ("head.kernel",))
            and (row.when is None or getattr(config, row.when))
        ]
