"""Rows of a matrix as ggml stores them: F32, F16, Q8_0, Q4_0, Q4_K.

A row of Q8_0 or Q4_0 is blocks of 32 weights with an fp16 scale before each, which
is what our int8 and int4 are (`jaxnas.compress.quantize`): their codes are written
as they are, and nothing is rounded again. Q4_K has blocks of 256 with a scale and a
least value for each 32, and is written by the package `libgguf`.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnas.compress import Blocks, from_blocks, host_codes
from jaxnas.compress.quantize import BLOCK
from jaxnas.export.rows import Rows

QUANTIZATION = {"q8_0": "int8", "q4_0": "int4"}  # ours of a ggml type
K_QUANT, K_BLOCK = "q4_k", 256
TYPES = ("f32", "f16", *QUANTIZATION, K_QUANT)
K_PACKAGE = "libgguf"


class Stored(NamedTuple):
    """A tensor as it is in the file."""

    kind: str  # of TYPES
    data: np.ndarray  # f32, f16, or u8[R, bytes of a row]
    exact: bool  # holds the model's values


def stored(rows: Rows, kind: str) -> Stored:
    """Rows as a type; what has no blocks of 32 is F16 if that is exact, else F32.

    Args:
      rows: the matrix.
      kind: of TYPES.
    """
    values = rows.values
    if kind == "f32":
        return Stored(kind, values, True)
    if kind == "f16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        return Stored(kind, half, np.array_equal(half, values))
    if kind == K_QUANT:
        return Stored(kind, _k_quant(values), not values.any())
    if values.shape[-1] % BLOCK:
        narrow = stored(rows, "f16")
        return narrow if narrow.exact else stored(rows, "f32")
    codes = rows.codes
    if codes is None or rows.quantization != QUANTIZATION[kind]:
        codes = host_codes(values, QUANTIZATION[kind])
    held = from_blocks(Blocks(*map(jnp.asarray, codes)), values.shape[-1])
    return Stored(kind, packed(*codes, kind), np.array_equal(held, values))


def _k_quant(values: np.ndarray) -> np.ndarray:
    """f32[R, C], C a multiple of 256 -> u8[R, C / 256 * 144]."""
    import libgguf

    rows = np.ascontiguousarray(values, np.float32)
    return libgguf.quantize_rows(rows, libgguf.GGMLQuantizationType.Q4_K)


def packed(codes: np.ndarray, scales: np.ndarray, kind: str) -> np.ndarray:
    """Blocks as ggml's bytes: u8[R, B * 34] of Q8_0, u8[R, B * 18] of Q4_0.

    Args:
      codes: i8[R, B, 32].
      scales: f16[R, B].
      kind: "q8_0" or "q4_0".
    """
    data: np.ndarray = codes.astype(np.uint8)  # two's complement
    if kind == "q4_0":  # two codes a byte: the first 16, then the last
        data = data + np.uint8(8)
        data = data[..., : BLOCK // 2] | (data[..., BLOCK // 2 :] << 4)
    ahead = np.ascontiguousarray(scales[..., None], "<f2").view(np.uint8)
    return np.concatenate([ahead, data], axis=-1).reshape(len(codes), -1)
