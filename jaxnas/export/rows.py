"""Matrices of ours by their rows, as they are stored: values, and codes where held."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from arch import ArchitectureConfig, Params
from arch.layout import Layout, layout_of, to_rows
from jaxnas.export.model_folder import Codes


@dataclasses.dataclass(frozen=True)
class Rows:
    """A matrix by its rows, with its codes where the model holds it in blocks.

    Attributes:
      values: f32[R, C].
      codes: i8[R, B, 32] and their scales f16[R, B], or None.
      quantization: "int8", "int4"; "fp16" if there are no codes.
    """

    values: np.ndarray
    codes: Codes | None = None
    quantization: str = "fp16"

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Rows":
        """The matrix with its rows chosen or put in another order."""
        codes = self.codes and (change(self.codes[0]), change(self.codes[1]))
        return dataclasses.replace(self, values=change(self.values), codes=codes)

    def times(self, factor: float) -> "Rows":
        """The matrix times a number, and the scales of its blocks."""
        codes = self.codes
        if codes is not None:
            codes = (codes[0], (codes[1] * np.float32(factor)).astype(np.float16))
        values = self.values * np.float32(factor)
        return dataclasses.replace(self, values=values, codes=codes)


def joined(parts: list[Rows]) -> Rows:
    """Matrices of one row length, one below the other."""
    values = np.concatenate([part.values for part in parts])
    held = [part.codes for part in parts if part.codes is not None]
    if len(held) < len(parts):
        return Rows(values)
    codes = [np.concatenate(arrays) for arrays in zip(*held, strict=True)]
    return Rows(values, (codes[0], codes[1]), parts[0].quantization)


@dataclasses.dataclass(frozen=True)
class MatrixRows:
    """All parameters of a model by their dotted paths below "params".

    Attributes:
      flat: f32, stacked [layers, ...] where the path begins with "blocks".
      codes: of the matrices that the model holds in blocks (`load_codes`).
      quantization: of the config.
    """

    flat: Mapping[str, np.ndarray]
    codes: Mapping[str, Codes]
    quantization: str

    def values(self, name: str, layer: int | None = None) -> np.ndarray:
        """A parameter, or a layer of it."""
        return self.flat[name] if layer is None else self.flat[name][layer]

    def rows(self, name: str, layer: int | None = None) -> Rows:
        """A matrix, or a layer of it."""
        values = np.asarray(to_rows(layout_at(name), jnp.asarray(self.flat[name])))
        held = Rows(values, self.codes.get(name), self.quantization)
        # A layer of a stack is one of its rows.
        return held if layer is None else held.map(lambda x: x[layer])


def weights_of(
    config: ArchitectureConfig, params: Params, codes: Mapping[str, Codes]
) -> MatrixRows:
    """The parameters of a model folder."""
    flat = {name: np.asarray(x) for name, x in flatten_dict(params, sep=".").items()}
    return MatrixRows(flat, codes, config.quantization)


@functools.cache
def layout_at(name: str) -> Layout:
    """Layout of the parameter at a dotted path below "params"."""
    return layout_of(tuple(map(jax.tree_util.DictKey, name.split("."))))


def halves(heads: int, head_dim: int, rotary: int) -> np.ndarray:
    """Rows of heads: of each head's first channels the even ones, then the odd ones.

    Ours turns channels 2i and 2i+1 together; in this order they are i and i + R/2.

    Args:
      heads: of the matrix.
      head_dim: channels of a head.
      rotary: R, those of them that turn.
    """
    rows = np.arange(heads * head_dim).reshape(heads, head_dim)
    turned = rows[:, :rotary]
    return np.hstack([turned[:, ::2], turned[:, 1::2], rows[:, rotary:]]).ravel()
