"""Products of 8-bit integers: a step for each row of a matrix and for each token.

A processor multiplies several times as many of them as of floats; what is rounded
is what `llama.cpp` rounds with Q8_0, by rows instead of blocks of 32.
"""

import numpy as np

from jaxnas.export.onnx.graph import FLOAT, UINT8, Graph
from jaxnas.export.rows import Rows

_MOST = 127  # of a code, which 128 is added to
_ZERO = 128
_LEAST = 1e-30  # of a step: what is all zeros stays so


def integer_product(graph: Graph, x: str, name: str, rows: Rows) -> str:
    """f32[..., C] times a matrix of R rows of C weights, both rounded to 8 bits.

    Codes of both are unsigned: signed weights overflow 16 bits in what processors
    without VNNI multiply with.
    """
    step = np.abs(rows.values).max(axis=1, keepdims=True) / np.float32(_MOST)
    step = np.maximum(step, np.float32(_LEAST))
    codes = np.round(rows.values / step) + _ZERO
    graph.weights[f"{name}.codes"] = np.ascontiguousarray(codes.T.astype(np.uint8))
    graph.weights["zero_code"] = np.asarray(_ZERO, np.uint8)
    steps = graph.weight(f"{name}.steps", step[:, 0])
    given, of_token = _token_codes(graph, x)
    zeros = ("zero_code", "zero_code")
    sums = graph.op("MatMulInteger", given, f"{name}.codes", *zeros)
    y = graph.op("Mul", graph.op("Cast", sums, to=FLOAT), of_token)
    return graph.op("Mul", y, steps)


def _token_codes(graph: Graph, x: str) -> tuple[str, str]:
    """u8[..., C] and the step of each token, f32[..., 1]; once for each value."""
    codes, step = f"{x}.codes", f"{x}.step"
    if not graph.has(codes):
        top = graph.op("ReduceMax", graph.op("Abs", x), graph.ints(-1))
        scaled = graph.op("Div", top, graph.number(float(_MOST)))
        graph.op("Max", scaled, graph.number(_LEAST), name=step)
        nearest = graph.op("Round", graph.op("Div", x, step))
        shifted = graph.op("Add", nearest, graph.number(float(_ZERO)))
        graph.op("Cast", shifted, name=codes, to=UINT8)
    return codes, step
