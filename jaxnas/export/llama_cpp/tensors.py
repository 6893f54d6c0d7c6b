"""Parameters of ours as llama.cpp's tensors, by an architecture's table."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from arch import ArchitectureConfig, Params
from arch.layout import Layout, layout_of, to_rows
from jaxnas.compress.quantize import BLOCK
from jaxnas.export.llama_cpp.architecture import Architecture, Row
from jaxnas.export.llama_cpp.blocks import Rows, Stored, joined, stored
from jaxnas.export.model_folder import Codes
from jaxnas.export.weights import position_table


class Tensor(NamedTuple):
    """One tensor of the file."""

    name: str
    stored: Stored
    note: str = ""  # why it is not simply the matrix in the type asked for


def to_file_tensors(
    architecture: Architecture,
    config: ArchitectureConfig,
    params: Params,
    codes: Mapping[str, Codes],
    kind: str,
) -> Iterator[Tensor]:
    """The file's tensors; what is no matrix is F32.

    Args:
      architecture: which takes the config.
      config: of the model.
      params: a language model's "params".
      codes: of the matrices that the model holds in blocks (`load_codes`).
      kind: type of the matrices, of TYPES. What is multiplied by no power of two
        is F32: no scale of blocks would hold the product.

    Raises:
      ValueError: the table and the parameters do not name the same tensors.
    """
    flat = {name: np.asarray(x) for name, x in flatten_dict(params, sep=".").items()}
    table = architecture.rows_of(config)
    if {*flat} != {name for row in table for name in row.ours}:
        raise ValueError(f"{architecture.name}'s table is not of these: {[*flat]}")
    written: set[tuple[str, ...]] = set()
    sizes = {}
    for row in table:
        for layer in range(config.num_layers) if row.stacked else [None]:
            name = row.theirs.format(layer=layer)
            if _layout(row.ours[0]).matrix:
                rows = _matrix(row, config, layer, flat, codes)
                rescaled = _is_rescaled(row, config)
                found = stored(rows, "f32" if rescaled else kind)
                sizes[name] = len(rows.values)
                note = f"again: {architecture.name} has a head of its own"
                if row.ours not in written:
                    note = _note(rows, kind, found, rescaled)
                yield Tensor(name, found, note)
            else:
                found = _vector(row, config, layer, flat)
                sizes[name] = found.data.size
                yield Tensor(name, found)
        written.add(row.ours)
    for bias in architecture.zeros:
        for layer in range(config.num_layers if "{layer}" in bias else 1):
            name = bias.format(layer=layer)
            size = sizes[name.removesuffix("bias") + "weight"]
            yield Tensor(name, Stored("f32", np.zeros(size, np.float32), True))
    if architecture.positions is not None:
        positions = Stored("f32", position_table(config), True)
        yield Tensor(architecture.positions, positions)


def _note(rows: Rows, kind: str, found: Stored, rescaled: bool) -> str:
    length = rows.values.shape[-1]
    if found.kind != kind and rescaled:
        return f"{found.kind}: no scale holds it over sqrt(hidden_dim={length})"
    if found.kind != kind:
        return f"{found.kind}: rows of {length} weights are no blocks of {BLOCK}"
    return "" if found.exact else f"rounded to {kind}, which is not what was scored"


def _is_rescaled(row: Row, config: ArchitectureConfig) -> bool:
    """True if the row's factor changes more than exponents."""
    return row.factor is not None and math.frexp(row.factor(config))[0] != 0.5


def _matrix(
    row: Row,
    config: ArchitectureConfig,
    layer: int | None,
    flat: Mapping[str, np.ndarray],
    codes: Mapping[str, Codes],
) -> Rows:
    def read(name: str) -> Rows:
        layout = _layout(name)
        values = np.asarray(to_rows(layout, jnp.asarray(flat[name])))
        held = Rows(values, codes.get(name), config.quantization)
        # A layer of a stack is one of its rows.
        return held if layer is None else held.map(lambda x: x[layer])

    matrix = joined([read(name) for name in row.ours])
    if row.order is not None:
        order = row.order(config)
        matrix = matrix.map(lambda x: x[order])
    return matrix if row.factor is None else matrix.times(row.factor(config))


def _vector(
    row: Row,
    config: ArchitectureConfig,
    layer: int | None,
    flat: Mapping[str, np.ndarray],
) -> Stored:
    (name,) = row.ours
    values = flat[name] if layer is None else flat[name][layer]
    if row.factor is not None:
        values = values * np.float32(row.factor(config))
    if row.change is not None:
        values = row.change(values)
    return Stored("f32", np.ascontiguousarray(values, np.float32), True)


@functools.cache
def _layout(name: str) -> Layout:
    return layout_of(tuple(map(jax.tree_util.DictKey, name.split("."))))
