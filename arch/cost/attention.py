"""Softmax attention: dense, with grouped heads, and without a score matrix.

Scores that are computed are counted, whether a causal mask removes them or not:
all T x S of T new tokens and S with those before, or blocks of them. Of a window
the tokens in it are counted, as where the others are skipped and forgotten.
"""

from arch.cost.parts import Op, matmul
from arch.cost.sizes import Count, Sizes, in_window
from arch.cost.workload import Workload

SOFTMAX_FLOPS = 6  # scale, max, subtract, exp, sum, divide
ALIBI_FLOPS = 2  # distance times slope, add
ROTARY_FLOPS = 3  # two products, one sum

DENSE_TOKENS = 16  # this many new tokens at most make one matrix of scores
BLOCK = 128  # rows and columns of a block of scores, at most


def attention(sizes: Sizes, reading: Workload) -> list[Op]:
    """Attention by its paper (Vaswani et al. 2017, arXiv:1706.03762).

    Scores are written, turned into weights and read again. Key and value heads
    may be fewer (Ainslie et al. 2023, arXiv:2305.13245): each is read once.
    """
    seen = in_window(sizes, reading.past + reading.tokens)
    known = in_window(sizes, reading.past + 1) - 1 + reading.tokens
    new_heads = reading.positions * sizes.kv_channels
    all_heads = reading.batch * known * sizes.kv_channels
    stream = reading.positions * sizes.hidden
    queries = reading.positions * sizes.attention
    scores, product = reading.positions * seen * sizes.heads, 2 * queries * seen
    return [
        *projections(sizes, reading),
        Op(
            name="scores",
            kind="attention",
            count=sizes.layers,
            flops=product,
            read=queries + all_heads,
            written=scores,
            held=stream + new_heads,
        ),
        Op(
            name="softmax",
            kind="elementwise",
            count=sizes.layers,
            flops=(SOFTMAX_FLOPS + ALIBI_FLOPS * sizes.alibi) * scores,
            read=scores,
            written=scores,
            held=stream + new_heads,
        ),
        Op(
            name="mix",
            kind="attention",
            count=sizes.layers,
            flops=product,
            read=scores + all_heads,
            written=queries,
            held=stream,
        ),
        out(sizes, reading),
    ]


def flash_attention(sizes: Sizes, reading: Workload) -> list[Op]:
    """The same function by blocks, in one op (Dao 2023, arXiv:2307.08691).

    Scores never reach the memory: it reads queries, keys and values, and writes
    what they give. Blocks in the future are left out. For few new tokens dense
    attention is as good, and runs instead.
    """
    if reading.tokens <= DENSE_TOKENS:
        return attention(sizes, reading)
    all_heads = reading.batch * (reading.past + reading.tokens) * sizes.kv_channels
    stream, scores = reading.positions * sizes.hidden, reading.batch * _visited(reading)
    queries = reading.positions * sizes.attention
    softmax = (SOFTMAX_FLOPS + ALIBI_FLOPS * sizes.alibi) * sizes.heads
    return [
        *projections(sizes, reading),
        Op(
            name="flash",
            kind="attention",
            count=sizes.layers,
            flops=(4 * sizes.attention + softmax) * scores,
            read=queries + 2 * all_heads,
            written=queries,
            held=stream,
        ),
        out(sizes, reading),
    ]


def _visited(reading: Workload) -> int:
    """Scores of one head and sequence, in the blocks that hold one to be seen."""
    seen = reading.past + reading.tokens
    rows, columns = _block_length(reading.tokens), _block_length(seen)
    ends = range(rows, reading.tokens + rows, rows)
    last = [reading.past + min(end, reading.tokens) - 1 for end in ends]
    return sum(rows * columns * (token // columns + 1) for token in last)


def _block_length(tokens: int) -> int:
    # Blocks of one length, as few as can be.
    return -(-tokens // -(-tokens // BLOCK))


def projections(sizes: Sizes, reading: Workload) -> list[Op]:
    """Queries, keys and values of the new tokens, and their rotation.

    Keys and values are written where they are remembered.
    """
    layers, hidden, positions = sizes.layers, sizes.hidden, reading.positions
    stream, heads = positions * hidden, positions * sizes.kv_channels
    queries = positions * sizes.attention
    return [
        matmul(
            "query",
            layers,
            hidden,
            sizes.attention,
            positions,
            stream,
            sizes.qkv_bias,
        ),
        # Last is the value projection: residual, query and key wait.
        matmul(
            "key_value",
            2 * layers,
            hidden,
            sizes.kv_channels,
            positions,
            stream + queries + heads,
            sizes.qkv_bias,
        ),
        _rotary("rotary_query", sizes, queries, stream + 2 * heads),
        _rotary("rotary_key", sizes, heads, stream + queries + heads),
    ]


def out(sizes: Sizes, reading: Workload) -> Op:
    """The projection back into the residual stream, which waits."""
    stream = reading.positions * sizes.hidden
    return matmul(
        "out",
        sizes.layers,
        sizes.attention,
        sizes.hidden,
        reading.positions,
        stream,
        sizes.biases * sizes.qkv_bias,
    )


def _rotary(name: str, sizes: Sizes, values: Count, held: Count) -> Op:
    turned = sizes.rotary_dim + (sizes.rotary_dim == 0) * sizes.head_dim
    # Of more heads than channels a head has none.
    values = values // (sizes.head_dim + (sizes.head_dim == 0)) * turned
    return Op(
        name=name,
        kind="elementwise",
        count=sizes.layers * sizes.rotary,
        flops=ROTARY_FLOPS * values,
        read=values,
        written=values,
        held=held,
    )
