"""An ONNX graph as it is built: nodes in their order, constants stored once."""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from jaxnas.compress.quantize import BLOCK
from jaxnas.errors import UsageError
from jaxnas.export.rows import Rows

if TYPE_CHECKING:
    import onnx

Setting: TypeAlias = int | float | str | list[int]  # of a node

# The first with what is used here, and the version of the file that goes with it.
OPSET, IR_VERSION = 18, 9
CODES_OPSET, CODES_IR_VERSION = 21, 10  # the first with blocks of codes

# Of a file, which protobuf bounds: nodes and names have the rest of 2 GiB.
MOST_BYTES = 2**31 - 2**24

FLOAT, UINT8, INT64, BOOL = 1, 2, 7, 9  # element types, as nodes spell them


class Graph:
    """Nodes, weights, inputs and outputs; values are spoken of by their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.int4: dict[str, np.ndarray] = {}  # codes -8 to 7, one to an element
        self.opset, self.ir_version = OPSET, IR_VERSION
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._values = 0

    def op(
        self, kind: str, *inputs: str, name: str | None = None, **settings: Setting
    ) -> str:
        """Adds a node of one output; returns the output's name."""
        import onnx

        if name is None:
            self._values += 1
            name = f"value_{self._values}"
        node = onnx.helper.make_node(kind, list(inputs), [name])
        for key, value in settings.items():
            node.attribute.append(onnx.helper.make_attribute(key, value))
        self.nodes.append(node)
        return name

    def has(self, name: str) -> bool:
        """Whether a node computes this value."""
        return any(name in node.output for node in self.nodes)

    def ints(self, *values: int) -> str:
        """A constant i64[n]."""
        name = "ints_" + "_".join(map(str, values))
        self.weights.setdefault(name, np.asarray(values, np.int64))
        return name

    def number(self, value: float) -> str:
        """A constant f32[]."""
        name = f"number_{value!r}"
        self.weights.setdefault(name, np.asarray(value, np.float32))
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        """A constant f32[...], stored as fp16 where that holds it exactly.

        A runtime makes it float32 once, when it loads the graph. A name that there
        is already means the same values.
        """
        if name in self.weights or f"{name}.fp16" in self.weights:
            return name
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half, values):
            self.weights[name] = np.ascontiguousarray(values, np.float32)
            return name
        self.weights[f"{name}.fp16"] = np.ascontiguousarray(half)
        return self.op("Cast", f"{name}.fp16", name=name, to=FLOAT)

    def kernel(self, name: str, rows: Rows) -> str:
        """A matrix f32[C, R] to multiply with, from rows of C weights.

        Codes stay codes: DequantizeLinear over blocks of 32, which onnxruntime joins
        with the product behind it, so that no matrix is widened.
        """
        if rows.codes is None:
            return self.weight(name, np.ascontiguousarray(rows.values.T))
        self.opset, self.ir_version = CODES_OPSET, CODES_IR_VERSION
        codes, scales = rows.codes
        inputs = rows.values.shape[1]
        flat = np.ascontiguousarray(codes.reshape(len(codes), -1)[:, :inputs].T)
        store = self.int4 if rows.quantization == "int4" else self.weights
        store[f"{name}.codes"] = flat
        steps = self.weight(f"{name}.scales", scales.T.astype(np.float32))
        return self.op(
            "DequantizeLinear", f"{name}.codes", steps, axis=0, block_size=BLOCK
        )

    def looked_up(self, name: str, rows: Rows, indices: str) -> str:
        """Rows of a matrix: indices i64[...] -> f32[..., C].

        Of codes only those rows are widened; two int4 codes are a byte, as in the
        model folder: the first 16 of a block, then the last.
        """
        if rows.codes is None:
            return self.op("Gather", self.weight(name, rows.values), indices)
        codes, scales = rows.codes
        if rows.quantization == "int4":
            shifted = (codes + 8).astype(np.uint8)
            half = BLOCK // 2
            self.weights[name] = shifted[..., :half] | (shifted[..., half:] << 4)
            found = self.op("Gather", name, indices)
            self.weights["nibble"] = np.asarray(15, np.uint8)
            self.weights["shift"] = np.asarray(4, np.uint8)
            low = self.op("BitwiseAnd", found, "nibble")
            high = self.op("BitShift", found, "shift", direction="RIGHT")
            both = self.op("Concat", low, high, axis=-1)
            values = self.op("Cast", both, to=FLOAT)
            values = self.op("Sub", values, self.number(8.0))
        else:
            self.weights[name] = codes
            values = self.op("Cast", self.op("Gather", name, indices), to=FLOAT)
        self.weights[f"{name}.scales"] = scales[..., None]
        steps = self.op("Gather", f"{name}.scales", indices)
        rows_found = self.op("Mul", values, self.op("Cast", steps, to=FLOAT))
        whole = self.op("Reshape", rows_found, self.ints(0, 0, -1))
        length = rows.values.shape[1]
        if length % BLOCK == 0:
            return whole
        ends = (self.ints(0), self.ints(length), self.ints(2))
        return self.op("Slice", whole, *ends)

    def input(self, name: str, kind: type[np.generic], *shape: str | int) -> str:
        """Adds an input; a name in the shape is an axis of any length."""
        self.inputs.append(_described(name, kind, shape))
        return name

    def output(self, name: str, *shape: str | int) -> None:
        """Makes a float32 value an output."""
        self.outputs.append(_described(name, np.float32, shape))

    def model(self) -> "onnx.ModelProto":
        """The whole, checked.

        Raises:
          UsageError: a file cannot hold its weights.
          onnx.checker.ValidationError: it is no valid graph.
        """
        import onnx

        size = sum(values.nbytes for values in self.weights.values())
        size += sum(codes.size // 2 for codes in self.int4.values())
        if size > MOST_BYTES:
            raise UsageError(
                f"ONNX holds at most {MOST_BYTES / 2**30:.2f} GiB of weights in a "
                f"file, this model has {size / 2**30:.2f}"
            )
        weights = [onnx.numpy_helper.from_array(x, n) for n, x in self.weights.items()]
        weights += [_int4(name, codes) for name, codes in self.int4.items()]
        graph = onnx.helper.make_graph(
            self.nodes, "jaxnas", self.inputs, self.outputs, weights
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", self.opset)],
            ir_version=self.ir_version,
            producer_name="jaxnas",
        )
        onnx.checker.check_model(model)
        return model


def _int4(name: str, codes: np.ndarray) -> "onnx.TensorProto":
    """Two codes a byte, the earlier one below."""
    import onnx

    nibbles = codes.ravel().astype(np.uint8) & 15
    nibbles = np.pad(nibbles, (0, nibbles.size % 2))
    packed = nibbles[::2] | (nibbles[1::2] << 4)
    kind = onnx.TensorProto.INT4
    return onnx.helper.make_tensor(name, kind, codes.shape, packed.tobytes(), raw=True)


def _described(
    name: str, kind: type[np.generic], shape: tuple[str | int, ...]
) -> "onnx.ValueInfoProto":
    import onnx

    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return onnx.helper.make_tensor_value_info(name, element, list(shape))
