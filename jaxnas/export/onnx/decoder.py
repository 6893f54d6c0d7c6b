"""Softmax attention of every kind as a graph: all norms, positions, activations.

Inputs and outputs are named as transformers.js and optimum name them: `input_ids`,
`attention_mask`, `position_ids` and `past_key_values.L.key|value` in, `logits` and
`present.L.key|value` out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from arch import ArchitectureConfig
from arch.config import NORM_GROUPS
from arch.layers.positions import alibi_slopes
from jaxnas.errors import UsageError
from jaxnas.export.decoders import ATTENTION
from jaxnas.export.onnx.graph import BOOL, FLOAT, Graph
from jaxnas.export.rows import MatrixRows, Rows, halves
from jaxnas.export.weights import position_table


def check_family(config: ArchitectureConfig) -> None:
    """Raises a UsageError for a model that is no softmax attention."""
    if config.arch_type not in ATTENTION:
        raise UsageError(
            f"no ONNX graph is written for arch_type={config.arch_type!r}: only for "
            f"{', '.join(ATTENTION)} (a space of these is a file: docs/spaces.md)"
        )


# Graph, value, name and rows of a matrix -> the product's name.
Product: TypeAlias = Callable[[Graph, str, str, Rows], str]


def multiplied(graph: Graph, x: str, name: str, rows: Rows) -> str:
    """f32[..., C] times a matrix of R rows of C weights, as they are stored."""
    return graph.op("MatMul", x, graph.kernel(name, rows))


class _Shared(NamedTuple):
    """What every layer reads."""

    graph: Graph
    product: Product
    config: ArchitectureConfig
    weights: MatrixRows
    bias: str  # f32[B, 1 or K, 1 or G, T, S], added to scores
    rotation: tuple[str, str] | None  # cosine and sine, f32[B, T, 1, H]


def decoder_graph(
    config: ArchitectureConfig,
    weights: MatrixRows,
    product: Product = multiplied,
    last_alone: bool = False,
) -> Graph:
    """The graph of a model, float32.

    B rows read T tokens each, behind S - T in the cache; K key heads with G query
    heads each, H channels of a head. `attention_mask` i64[B, S] is 0 at padding.

    Args:
      config: of the model, whose family `check_family` takes.
      weights: its parameters.
      product: how matrices are multiplied.
      last_alone: whether logits are of the last token alone.
    """
    graph = Graph()
    tokens = graph.input("input_ids", np.int64, "batch", "tokens")
    graph.input("attention_mask", np.int64, "batch", "all_tokens")
    positions = graph.input("position_ids", np.int64, "batch", "tokens")
    read = 1 if last_alone else "tokens"
    graph.output("logits", "batch", read, config.vocab_size)
    embedding = weights.rows("embed.embedding")
    x = graph.looked_up("embed", embedding, tokens)
    if config.position_encoding == "absolute":
        x = graph.op("Add", x, _positions(graph, config, weights, positions))
    rotation = _rotation(graph, config) if config.position_encoding == "rope" else None
    bias = _bias(graph, config)
    shared = _Shared(graph, product, config, weights, bias, rotation)
    for layer in range(config.num_layers):
        x = _block(shared, layer, x)
    if last_alone:
        last = (graph.ints(-1), graph.ints(2**31 - 1), graph.ints(1))
        x = graph.op("Slice", x, *last)
    _logits(shared, _norm(shared, "norm", None, x))
    return graph


def _positions(
    graph: Graph, config: ArchitectureConfig, weights: MatrixRows, positions: str
) -> str:
    """What is added to the embeddings: of a table that was learned, or computed."""
    if config.learned_positions:
        return graph.looked_up(
            "positions", weights.rows("positions.embedding"), positions
        )
    table = graph.weight("positions", position_table(config))
    return graph.op("Gather", table, positions)


def _logits(shared: _Shared, x: str) -> None:
    graph, config, weights = shared.graph, shared.config, shared.weights
    name = "embed.embedding" if config.tie_embeddings else "head.kernel"
    rows = weights.rows(name)
    if config.tie_embeddings and rows.codes is None and shared.product is multiplied:
        # One matrix for both; codes, whose layouts differ, are there twice.
        head = graph.op("Transpose", graph.weight("embed", rows.values), perm=[1, 0])
        y = graph.op("MatMul", x, head)
    else:
        y = shared.product(graph, x, "head", rows)
    if config.head_bias:
        bias = graph.weight("head.bias", weights.values("head.bias"))
        graph.op("Add", y, bias, name="logits")
    else:
        graph.op("Identity", y, name="logits")


def _bias(graph: Graph, config: ArchitectureConfig) -> str:
    """0 where a key is seen, minus the distance times ALiBi's slope; else -1e9."""
    mask, one = "attention_mask", graph.ints(1)
    known = graph.op("Shape", mask, start=1, end=2)
    read = graph.op("Shape", "input_ids", start=1, end=2)
    zero, step = (graph.op("Squeeze", graph.ints(value)) for value in (0, 1))
    keys = graph.op(
        "Range", graph.op("Squeeze", zero), graph.op("Squeeze", known), step
    )
    queries = graph.op("Slice", keys, graph.op("Sub", known, read), known)
    distance = graph.op("Sub", graph.op("Unsqueeze", queries, one), keys)  # [T, S]
    past = graph.op("GreaterOrEqual", distance, zero)
    if config.sliding_window is not None:
        window = graph.op("Squeeze", graph.ints(config.sliding_window))
        past = graph.op("And", past, graph.op("Less", distance, window))
    real = graph.op("Cast", mask, to=BOOL)
    seen = graph.op("And", past, graph.op("Unsqueeze", real, graph.ints(1, 2, 3)))
    if config.position_encoding != "alibi":
        score = graph.number(0.0)
    else:
        slopes = alibi_slopes(config.num_heads)
        by_group = slopes.reshape(1, config.key_value_heads, -1, 1, 1)
        back = graph.op("Cast", distance, to=FLOAT)
        score = graph.op("Mul", back, graph.weight("slopes", -by_group))
    return graph.op("Where", seen, score, graph.number(-1e9))


def _rotation(graph: Graph, config: ArchitectureConfig) -> tuple[str, str]:
    """Cosine and sine of each position's angles, twice: for halves of a head."""
    turned = config.rotary_channels
    pairs = np.arange(turned // 2, dtype=np.float32)
    base = np.float32(-math.log(config.rope_theta) * 2)
    frequency = np.exp(base * pairs / turned) / np.float32(config.rope_scaling)
    positions = graph.op("Cast", "position_ids", to=FLOAT)
    ahead = graph.op("Unsqueeze", positions, graph.ints(2, 3))
    angle = graph.op("Mul", ahead, graph.weight("frequency", frequency))
    angles = graph.op("Concat", angle, angle, axis=-1)
    return graph.op("Cos", angles), graph.op("Sin", angles)


def _block(shared: _Shared, layer: int, x: str) -> str:
    graph, config = shared.graph, shared.config
    y = _norm(shared, "blocks.mixer_norm", layer, x)
    mixed = graph.op("Add", x, _attention(shared, layer, y))
    if not config.shared_norm:
        read = x if config.parallel_residual else mixed
        y = _norm(shared, "blocks.feedforward_norm", layer, read)
    return graph.op("Add", mixed, _feedforward(shared, layer, y))


def _linear(shared: _Shared, name: str, layer: int, x: str) -> str:
    """Multiplies with a kernel of a layer; of heads that turn, in `halves`."""
    rows, config = shared.weights.rows(f"{name}.kernel", layer), shared.config
    order = np.arange(len(rows.values))
    if shared.rotation is not None and name.endswith((".query", ".key")):
        heads = len(rows.values) // config.head_dim
        order = halves(heads, config.head_dim, config.rotary_channels)
        rows = rows.map(lambda x: x[order])
    graph = shared.graph
    y = shared.product(graph, x, f"{name}.{layer}", rows)
    if f"{name}.bias" not in shared.weights.flat:
        return y
    bias = shared.weights.values(f"{name}.bias", layer).reshape(-1)[order]
    return graph.op("Add", y, graph.weight(f"{name}.{layer}.bias", bias))


def _norm(shared: _Shared, name: str, layer: int | None, x: str) -> str:
    graph, config = shared.graph, shared.config
    values = shared.weights.values(f"{name}.scale", layer)
    scale = graph.weight(f"{name}.{layer}", values)
    y = _normalised(graph, config, scale, x)
    if f"{name}.bias" not in shared.weights.flat:
        return y
    bias = shared.weights.values(f"{name}.bias", layer)
    return graph.op("Add", y, graph.weight(f"{name}.{layer}.bias", bias))


def _normalised(graph: Graph, config: ArchitectureConfig, scale: str, x: str) -> str:
    if config.normalization == "layernorm":
        return graph.op("LayerNormalization", x, scale, epsilon=config.norm_epsilon)
    if config.normalization == "groupnorm":
        size = config.hidden_dim // NORM_GROUPS
        groups = graph.op("Reshape", x, graph.ints(0, 0, NORM_GROUPS, size))
        ones = graph.weight("ones", np.ones(size, np.float32))
        y = graph.op("LayerNormalization", groups, ones, epsilon=config.norm_epsilon)
        y = graph.op("Reshape", y, graph.ints(0, 0, config.hidden_dim))
        return graph.op("Mul", y, scale)
    square = graph.op("ReduceMean", graph.op("Mul", x, x), graph.ints(-1))
    root = graph.op("Sqrt", graph.op("Add", square, graph.number(config.norm_epsilon)))
    return graph.op("Mul", graph.op("Div", x, root), scale)


def _attention(shared: _Shared, layer: int, x: str) -> str:
    graph, config = shared.graph, shared.config
    queries, keys, size = config.num_heads, config.key_value_heads, config.head_dim

    def project(name: str, heads: int) -> str:
        y = _linear(shared, f"blocks.mixer.{name}", layer, x)
        y = graph.op("Reshape", y, graph.ints(0, 0, heads, size))
        return _turned(shared, y) if name != "value" else y

    cached = []
    for kind in ("key", "value"):
        row = project(kind, keys)
        shape = ("batch", keys, "past_tokens", size)
        past = graph.input(f"past_key_values.{layer}.{kind}", np.float32, *shape)
        row = graph.op("Transpose", row, perm=[0, 2, 1, 3])
        present = graph.op("Concat", past, row, name=f"present.{layer}.{kind}", axis=2)
        graph.output(present, "batch", keys, "all_tokens", size)
        cached.append(graph.op("Unsqueeze", present, graph.ints(2)))  # [B, K, 1, S, H]
    q = project("query", queries)
    q = graph.op("Reshape", q, graph.ints(0, 0, keys, queries // keys, size))
    q = graph.op("Transpose", q, perm=[0, 2, 3, 1, 4])  # [B, K, G, T, H]
    products = graph.op(
        "MatMul", q, graph.op("Transpose", cached[0], perm=[0, 1, 2, 4, 3])
    )
    scores = graph.op("Mul", products, graph.number(size**-0.5))
    seen = graph.op("Softmax", graph.op("Add", scores, shared.bias), axis=-1)
    mixed = graph.op("MatMul", seen, cached[1])
    mixed = graph.op("Transpose", mixed, perm=[0, 3, 1, 2, 4])
    mixed = graph.op("Reshape", mixed, graph.ints(0, 0, config.attention_channels))
    return _linear(shared, "blocks.mixer.out", layer, mixed)


def _turned(shared: _Shared, x: str) -> str:
    """[B, T, heads, H], with rope channels i and i + H/2 of a head turned together."""
    if shared.rotation is None:
        return x
    graph, turned = shared.graph, shared.config.rotary_channels
    half = turned // 2
    cosine, sine = shared.rotation
    last = graph.ints(3)
    first = graph.op("Slice", x, graph.ints(0), graph.ints(half), last)
    second = graph.op("Slice", x, graph.ints(half), graph.ints(turned), last)
    across = graph.op("Concat", graph.op("Neg", second), first, axis=-1)
    size = shared.config.head_dim
    whole = x if turned == size else graph.op("Concat", first, second, axis=-1)
    straight = graph.op("Mul", whole, cosine)
    found = graph.op("Add", straight, graph.op("Mul", across, sine))
    if turned == size:
        return found
    rest = graph.op("Slice", x, graph.ints(turned), graph.ints(size), last)
    return graph.op("Concat", found, rest, axis=-1)


def _feedforward(shared: _Shared, layer: int, x: str) -> str:
    graph, activation = shared.graph, shared.config.activation_form
    up = _linear(shared, "blocks.feedforward.up", layer, x)
    gate = up
    if shared.config.gated:
        gate = _linear(shared, "blocks.feedforward.gate", layer, x)
    if activation == "relu2":
        positive = graph.op("Relu", gate)
        inner = graph.op("Mul", positive, positive)
    elif activation in ("silu", "swiglu"):
        inner = graph.op("Mul", gate, graph.op("Sigmoid", gate))
    else:
        bent = (_tanh if activation.endswith("_tanh") else _erf)(graph, gate)
        whole = graph.op("Add", bent, graph.number(1.0))
        inner = graph.op("Mul", graph.op("Mul", gate, graph.number(0.5)), whole)
    if shared.config.gated:
        inner = graph.op("Mul", inner, up)
    return _linear(shared, "blocks.feedforward.down", layer, inner)


def _erf(graph: Graph, x: str) -> str:
    """What bends GELU: twice the normal distribution, less one."""
    return graph.op("Erf", graph.op("Mul", x, graph.number(math.sqrt(0.5))))


def _tanh(graph: Graph, x: str) -> str:
    """Its approximation (arXiv:1606.08415, 2)."""
    cube = graph.op("Mul", graph.op("Mul", x, x), x)
    inner = graph.op("Add", x, graph.op("Mul", cube, graph.number(0.044715)))
    return graph.op(
        "Tanh", graph.op("Mul", inner, graph.number(math.sqrt(2 / math.pi)))
    )
