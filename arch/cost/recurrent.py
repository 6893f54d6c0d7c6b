"""Families that hand a state of fixed size from token to token.

Scans are counted as their papers' kernels run them, one step after the other:
states stay on the chip, and what crosses the memory is the state before the
first token and after the last.
"""

from arch.config import MAMBA_STATE, MAMBA_TAPS
from arch.cost.parts import ACTIVATION_FLOPS, Op, Weight, matmul, vector
from arch.cost.sizes import Count, Sizes
from arch.cost.state import mamba_state, rwkv_state
from arch.cost.workload import Workload

SOFTPLUS_FLOPS = 4  # bias, exp, add, log
SCAN_FLOPS = 7  # of a state: decay's product and exp, input, 2 update, 2 output
SHIFT_FLOPS = 3  # of a mix with the token before: two products, one sum
# For a channel: the output's exponent (2), weights of past and present (4), two
# sums (5), a division; then the same without a division, to go on.
WKV_FLOPS = 23
SIGMOID_FLOPS = 3  # exp, add, divide


def mamba(sizes: Sizes, reading: Workload) -> list[Op]:
    """Mamba-1 (Gu and Dao 2023, arXiv:2312.00752)."""
    layers, hidden, inner = sizes.layers, sizes.hidden, sizes.inner
    positions, state = reading.positions, mamba_state(sizes, reading.batch)
    stream, wide = positions * hidden, positions * inner
    return [
        matmul("in_proj", layers, hidden, 2 * inner, positions, stream),
        Op(
            name="conv",
            kind="elementwise",
            count=layers,
            weights=(Weight(inner, MAMBA_TAPS, quantised=False), vector(inner)),
            flops=(2 * MAMBA_TAPS + 1 + ACTIVATION_FLOPS) * wide,
            read=wide + reading.loads * state.values,
            written=wide + reading.stores * state.values,
            held=stream + wide,
        ),
        *_selective_scan(sizes, reading),
        Op(
            name="output_gate",
            kind="elementwise",
            count=layers,
            flops=(ACTIVATION_FLOPS + 1) * wide,
            read=2 * wide,
            written=wide,
            held=stream,
        ),
        matmul("out_proj", layers, inner, hidden, positions, stream),
    ]


def _selective_scan(sizes: Sizes, reading: Workload) -> list[Op]:
    """Mamba's scan, and what it reads, drawn from the token itself."""
    layers, inner, rank = sizes.layers, sizes.inner, sizes.step_rank
    positions, state = reading.positions, mamba_state(sizes, reading.batch)
    stream, wide = positions * sizes.hidden, positions * inner
    both = 2 * MAMBA_STATE  # the input and output vectors of the state
    vectors = positions * both
    return [
        matmul("x_proj", layers, inner, rank + both, positions, stream + wide),
        matmul("dt_proj", layers, rank, inner, positions, stream + 2 * wide + vectors),
        Op(
            name="softplus",
            kind="elementwise",
            count=layers,
            weights=(vector(inner),),  # dt_proj's bias
            flops=SOFTPLUS_FLOPS * wide,
            read=wide,
            written=wide,
            held=stream + 2 * wide + vectors,
        ),
        Op(
            name="scan",
            kind="scan",
            count=layers,
            weights=(
                Weight(inner, MAMBA_STATE, quantised=False),  # A_log
                vector(inner),  # D
            ),
            flops=(SCAN_FLOPS * MAMBA_STATE + 3) * wide,  # 3: step times x, D's skip
            read=2 * wide + vectors,
            written=wide,
            sums=(reading.loads + reading.stores) * state.sums,
            held=stream + wide,
            steps=reading.tokens,
        ),
    ]


def time_mix(sizes: Sizes, reading: Workload) -> list[Op]:
    """RWKV-4's mixer (Peng et al. 2023, arXiv:2305.13048)."""
    layers, hidden, positions = sizes.layers, sizes.hidden, reading.positions
    stream, state = positions * hidden, rwkv_state(sizes, reading.batch)
    square = lambda name, count, held: matmul(
        name, count, hidden, hidden, positions, held
    )
    return [
        _shift("time_shift", sizes, reading, mixes=3),
        # Beside the residual, two of their inputs or outputs wait.
        square("key_value_receptance", 3 * layers, 3 * stream),
        Op(
            name="wkv",
            kind="scan",
            count=layers,
            weights=(vector(hidden),) * 2,  # decay and bonus
            flops=WKV_FLOPS * stream,
            read=2 * stream,
            written=stream,
            sums=(reading.loads + reading.stores) * state.sums,
            held=2 * stream,
            steps=reading.tokens,
        ),
        _gate("time_gate", layers, stream),
        square("output", layers, stream),
    ]


def channel_mix(sizes: Sizes, reading: Workload) -> list[Op]:
    """RWKV-4's feed-forward layer, which looks one token back."""
    layers, hidden, inner = sizes.layers, sizes.hidden, sizes.inner
    positions = reading.positions
    stream, wide = positions * hidden, positions * inner
    return [
        _shift("channel_shift", sizes, reading, mixes=2),
        # Beside the residual, what the receptance reads waits.
        matmul("up", layers, hidden, inner, positions, 2 * stream),
        Op(
            name="squared_relu",
            kind="elementwise",
            count=layers,
            flops=2 * wide,
            read=wide,
            written=wide,
            held=2 * stream,
        ),
        matmul("down", layers, inner, hidden, positions, 2 * stream),
        matmul("receptance", layers, hidden, hidden, positions, 2 * stream),
        _gate("channel_gate", layers, stream),
    ]


def _shift(name: str, sizes: Sizes, reading: Workload, mixes: int) -> Op:
    # Half of the inputs that a layer keeps are of either sub-layer.
    values = reading.positions * sizes.hidden
    last = rwkv_state(sizes, reading.batch).values // 2
    return Op(
        name=name,
        kind="elementwise",
        count=sizes.layers,
        weights=(vector(sizes.hidden),) * mixes,
        flops=mixes * SHIFT_FLOPS * values,
        read=values + reading.loads * last,
        written=mixes * values + reading.stores * last,
        held=values,
    )


def _gate(name: str, layers: Count, values: Count) -> Op:
    return Op(
        name=name,
        kind="elementwise",
        count=layers,
        flops=(SIGMOID_FLOPS + 1) * values,
        read=2 * values,
        written=values,
        held=values,
    )
