"""An ONNX graph as it is built: nodes in their order, constants stored once."""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import onnx

Setting: TypeAlias = int | float | list[int]  # of a node

OPSET = 18  # the first with what is used here; runtimes of 2023 and later have it
IR_VERSION = 9


class Graph:
    """Nodes, weights, inputs and outputs; values are spoken of by their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
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
        return self.op("Cast", f"{name}.fp16", name=name, to=1)  # FLOAT

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
          onnx.checker.ValidationError: it is no valid graph.
        """
        import onnx

        weights = [onnx.numpy_helper.from_array(x, n) for n, x in self.weights.items()]
        graph = onnx.helper.make_graph(
            self.nodes, "jaxnas", self.inputs, self.outputs, weights
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="jaxnas",
        )
        onnx.checker.check_model(model)
        return model


def _described(
    name: str, kind: type[np.generic], shape: tuple[str | int, ...]
) -> "onnx.ValueInfoProto":
    import onnx

    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return onnx.helper.make_tensor_value_info(name, element, list(shape))
