"""Parameters of ours as llama.cpp's tensors, by an architecture's table."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from arch import ArchitectureConfig
from jaxnas.compress.quantize import BLOCK
from jaxnas.errors import UsageError
from jaxnas.export.llama_cpp.architecture import Architecture, FileRow
from jaxnas.export.llama_cpp.blocks import K_BLOCK, K_QUANT, Stored, stored
from jaxnas.export.rows import MatrixRows, Rows, joined, layout_at
from jaxnas.export.weights import position_table


class Tensor(NamedTuple):
    """One tensor of the file."""

    name: str
    stored: Stored
    note: str = ""  # why it is not simply the matrix in the type asked for


def to_file_tensors(
    architecture: Architecture,
    config: ArchitectureConfig,
    weights: MatrixRows,
    kind: str,
) -> Iterator[Tensor]:
    """The file's tensors; what is no matrix is F32.

    Args:
      architecture: which takes the config.
      config: of the model.
      weights: its parameters.
      kind: type of the matrices, of TYPES. What is multiplied by no power of two
        is F32: no scale of blocks would hold the product.

    Raises:
      UsageError: rows do not fit the type's blocks.
      ValueError: the table and the parameters do not name the same tensors.
    """
    table = architecture.rows_of(config)
    if {*weights.flat} != {name for row in table for name in row.ours}:
        raise ValueError(
            f"{architecture.name}'s table is not of these: {[*weights.flat]}"
        )
    written: set[tuple[str, ...]] = set()
    sizes = {}
    for row in table:
        for layer in range(config.num_layers) if row.stacked else [None]:
            name = row.theirs.format(layer=layer)
            if layout_at(row.ours[0]).matrix:
                rows = _matrix(row, config, layer, weights)
                _check_rows(name, rows, kind)
                rescaled = _is_rescaled(row, config)
                found = stored(rows, "f32" if rescaled else kind)
                sizes[name] = len(rows.values)
                note = f"again: {architecture.name} has a head of its own"
                if row.ours not in written:
                    note = _note(rows, kind, found, rescaled)
                yield Tensor(name, found, note)
            else:
                found = _vector(row, config, layer, weights)
                sizes[name] = found.data.size
                yield Tensor(name, found)
        written.add(row.ours)
    for bias in architecture.zeros:
        for layer in range(config.num_layers if "{layer}" in bias else 1):
            name = bias.format(layer=layer)
            if name in sizes:  # ours has it
                continue
            size = sizes[name.removesuffix("bias") + "weight"]
            yield Tensor(name, Stored("f32", np.zeros(size, np.float32), True))
    if architecture.positions is not None and not config.learned_positions:
        positions = Stored("f32", position_table(config), True)
        yield Tensor(architecture.positions, positions)


def _check_rows(name: str, rows: Rows, kind: str) -> None:
    length = rows.values.shape[-1]
    if kind == K_QUANT and length % K_BLOCK:
        raise UsageError(
            f"{kind} needs rows of a multiple of {K_BLOCK} weights, those of {name} "
            f"have {length}: choose another --type, q4_0 needs multiples of {BLOCK}"
        )


def is_bias(row: FileRow) -> bool:
    """True for biases, which are a vector there, also those of heads."""
    return row.ours[0].endswith(".bias")


def _note(rows: Rows, kind: str, found: Stored, rescaled: bool) -> str:
    length = rows.values.shape[-1]
    if found.kind != kind and rescaled:
        return f"{found.kind}: no scale holds it over sqrt(hidden_dim={length})"
    if found.kind != kind:
        return f"{found.kind}: rows of {length} weights are no blocks of {BLOCK}"
    return "" if found.exact else f"rounded to {kind}, which is not what was scored"


def _is_rescaled(row: FileRow, config: ArchitectureConfig) -> bool:
    """True if the row's factor changes more than exponents."""
    return row.factor is not None and math.frexp(row.factor(config))[0] != 0.5


def _matrix(
    row: FileRow, config: ArchitectureConfig, layer: int | None, weights: MatrixRows
) -> Rows:
    matrix = joined([weights.rows(name, layer) for name in row.ours])
    if row.order is not None:
        order = row.order(config)
        matrix = matrix.map(lambda x: x[order])
    return matrix if row.factor is None else matrix.times(row.factor(config))


def _vector(
    row: FileRow, config: ArchitectureConfig, layer: int | None, weights: MatrixRows
) -> Stored:
    parts = [weights.values(name, layer) for name in row.ours]
    if is_bias(row):
        values = np.concatenate([part.ravel() for part in parts])
    else:
        (values,) = parts
    if row.order is not None:
        values = values[row.order(config)]
    if row.factor is not None:
        values = values * np.float32(row.factor(config))
    if row.change is not None:
        values = row.change(values)
    return Stored("f32", np.ascontiguousarray(values, np.float32), True)
