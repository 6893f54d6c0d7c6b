"""Linear attention (Katharopoulos et al. 2020, arXiv:2006.16236).

Inside a chunk of tokens it is attention without a softmax; between chunks, and
from one generated token to the next, it is a state. With rotary positions the
weights that divide are not those that mix: they are computed twice.
"""

from arch.cost.attention import out, projections
from arch.cost.parts import Op
from arch.cost.sizes import Count, Sizes
from arch.cost.state import linear_state
from arch.cost.workload import Workload

CHUNK = 64  # tokens that attend to one another directly, at most
FEATURE_FLOPS = 4  # elu(x) + 1: exp, add, two choices


def linear_attention(sizes: Sizes, reading: Workload) -> list[Op]:
    """Chunks of equal size for many tokens, a step of the state for one."""
    stream = reading.positions * sizes.hidden
    queries = reading.positions * sizes.attention
    features = Op(
        name="features",
        kind="elementwise",
        count=2 * sizes.layers,
        flops=FEATURE_FLOPS * queries,
        read=queries,
        written=queries,
        held=stream + 2 * queries,
    )
    single = reading.keeps_cache and reading.tokens == 1
    mixer = [_step(sizes, reading)] if single else _chunks(sizes, reading)
    return [*projections(sizes, reading), features, *mixer, out(sizes, reading)]


def _step(sizes: Sizes, reading: Workload) -> Op:
    # Each sum fades (1), takes up the token (key times value, 1; add, 1) and is
    # read (2); then a division.
    stream, state = reading.positions * sizes.hidden, linear_state(sizes, reading.batch)
    queries = reading.positions * sizes.attention
    return Op(
        name="step",
        kind="scan",
        count=sizes.layers,
        flops=5 * state.sums,
        read=3 * queries,
        written=queries,
        sums=(reading.loads + reading.stores) * state.sums,
        held=stream,
    )


def _chunks(sizes: Sizes, reading: Workload) -> list[Op]:
    chunks = -(-reading.tokens // CHUNK)
    length = -(-reading.tokens // chunks)
    padded = reading.batch * chunks * length
    stream, weights = padded * sizes.hidden, padded * length * sizes.heads
    queries = padded * sizes.attention
    # Beside the residual: features, of both kinds if they are rotated, and values.
    held = stream + (3 + 2 * sizes.rotary) * queries
    twice = sizes.layers * (1 + sizes.rotary)
    return [
        Op(
            name="weights",
            kind="attention",
            count=twice,
            flops=2 * queries * length,
            read=2 * queries,
            written=weights,
            held=held - 2 * queries,
        ),
        Op(  # the future is masked, or the past fades as ALiBi has it
            name="fade",
            kind="elementwise",
            count=twice,
            flops=weights,
            read=weights,
            written=weights,
            held=held,
        ),
        Op(
            name="mix",
            kind="attention",
            count=sizes.layers,
            flops=2 * queries * length,
            read=weights + queries,
            written=queries,
            held=held - queries,
        ),
        *_between_chunks(sizes, reading, chunks, queries, held),
        Op(  # the sum of the weights, and a division
            name="normalise",
            kind="elementwise",
            count=sizes.layers,
            flops=weights + queries,
            read=weights + queries,
            written=queries,
            held=stream,
        ),
    ]


def _between_chunks(
    sizes: Sizes, reading: Workload, chunks: int, queries: Count, held: Count
) -> list[Op]:
    # One chunk that nothing comes after, nor came before, needs no state.
    count = sizes.layers * int(chunks > 1 or reading.keeps_cache)
    state = linear_state(sizes, reading.batch)
    return [
        Op(
            name="chunk_sums",
            kind="attention",
            count=count,
            flops=2 * queries * sizes.head_dim,
            read=2 * queries,
            sums=chunks * state.sums,
            held=held,
        ),
        Op(  # keys fade (2) and are summed (1); each state fades and takes up one
            name="states",
            kind="scan",
            count=count,
            flops=3 * queries + 2 * chunks * state.sums,
            read=queries,
            sums=(2 * chunks + reading.loads + reading.stores) * state.sums,
            held=held,
            steps=chunks,
        ),
        Op(
            name="state_mix",
            kind="attention",
            count=count,
            flops=2 * queries * (sizes.head_dim + 1),
            read=2 * queries,
            written=queries,
            sums=chunks * state.sums,
            held=held,
        ),
    ]
