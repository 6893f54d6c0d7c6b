"""A model's forward pass as a list of ops, in the order they run.

Everything is arithmetic on `Sizes`, so one config's ints and a space's columns
go through the same lines. Letters: B batch, T tokens, D hidden, F feed-forward,
E Mamba's inner, N its state, V vocabulary.
"""

import dataclasses
from typing import NamedTuple

from arch.config import MAMBA_STATE, MAMBA_TAPS
from arch.cost.sizes import Count, Sizes

KINDS = ("matmul", "attention", "scan", "elementwise", "gather")

# Operations per value, with exp, tanh, a root or a division as one each. They
# are a percent or so of a forward pass; that they are there at all matters more
# than their last digit.
NORM_FLOPS = 5  # square, sum, multiply by the root, by the scale; or a mean
SOFTMAX_FLOPS = 6  # scale, max, subtract, exp, sum, divide
ALIBI_FLOPS = 2  # distance times slope, add
ROTARY_FLOPS = 3  # two products, one sum
ACTIVATION_FLOPS = 6  # gelu, silu
SOFTPLUS_FLOPS = 4  # bias, exp, add, log
SCAN_FLOPS = 7  # of a state: decay's product and exp, input, 2 update, 2 output


class Weight(NamedTuple):
    """A stored tensor: `rows` rows along which blocks are quantised.

    A kernel's row runs along its input (contracted) dimension; an embedding's
    and a head's along D.
    """

    rows: Count
    row_length: Count
    quantised: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One op of a forward pass; all figures are of one of its `count` runs."""

    name: str
    kind: str  # one of KINDS
    count: Count  # runs in a forward pass, each with its own weights
    weights: tuple[Weight, ...] = ()  # what it adds to the file
    streamed: tuple[Weight, ...] | None = None  # what it reads; None: `weights`
    flops: Count = 0  # 2 a multiply-add
    read: Count = 0  # activation values it reads
    written: Count = 0  # activation values it writes
    held: Count = 0  # activation values alive meanwhile for later ops


def list_ops(sizes: Sizes, batch: int = 1, tokens: int = 128) -> tuple[Op, ...]:
    """The ops of a forward pass over `tokens` tokens, logits for all of them.

    Raises:
      ValueError: a family whose ops are not written.
    """
    if sizes.arch_type not in _BLOCKS:
        raise ValueError(
            f"no costs for arch_type={sizes.arch_type!r}: "
            f"available are {' | '.join(_BLOCKS)}"
        )
    block = _BLOCKS[sizes.arch_type](sizes, batch, tokens)
    head = _matmul("head", 1, sizes.hidden, sizes.vocab, batch * tokens)
    return (_embedding(sizes, batch * tokens), *block, head)


def _embedding(sizes: Sizes, positions: Count) -> Op:
    # Tied, the table is the head's: nothing of its own is stored.
    return Op(
        name="embedding",
        kind="gather",
        count=1,
        weights=(Weight(sizes.vocab * (1 - sizes.tied), sizes.hidden),),
        streamed=(Weight(positions, sizes.hidden),),
        written=positions * sizes.hidden,
    )


def _matmul(
    name: str,
    count: Count,
    inputs: Count,
    outputs: Count,
    positions: Count,
    held: Count = 0,
) -> Op:
    return Op(
        name=name,
        kind="matmul",
        count=count,
        weights=(Weight(outputs, inputs),),
        flops=2 * positions * inputs * outputs,
        read=positions * inputs,
        written=positions * outputs,
        held=held,
    )


def _residual_stream(sizes: Sizes, positions: Count, branches: Count) -> list[Op]:
    # The norms of all branches and the final one, and each branch's addition.
    values = positions * sizes.hidden
    norm = Op(
        name="norm",
        kind="elementwise",
        count=branches + 1,
        weights=(Weight(1, sizes.hidden, quantised=False),),
        flops=NORM_FLOPS * values,
        read=values,
        written=values,
    )
    add = Op(
        name="residual",
        kind="elementwise",
        count=branches,
        flops=values,
        read=2 * values,
        written=values,
    )
    return [norm, add]


def _transformer(sizes: Sizes, batch: int, tokens: int) -> list[Op]:
    return [
        Op(
            name="positions",
            kind="elementwise",
            count=1 - sizes.rotary - sizes.alibi,
            flops=batch * tokens * sizes.hidden,
            read=batch * tokens * sizes.hidden,
            written=batch * tokens * sizes.hidden,
        ),
        *_residual_stream(sizes, batch * tokens, 2 * sizes.layers),
        *_attention(sizes, batch, tokens),
        *_feedforward(sizes, batch * tokens),
    ]


def _attention(sizes: Sizes, batch: int, tokens: int) -> list[Op]:
    # A dense implementation: the causal half that is masked is computed too,
    # so every score matrix is the full T x T.
    layers, hidden = sizes.layers, sizes.hidden
    stream = batch * tokens * hidden
    scores = batch * sizes.heads * tokens * tokens
    project = lambda name, count, held: _matmul(
        name, count, hidden, hidden, batch * tokens, held
    )
    return [
        # Last is the value projection: query, key and the residual wait.
        project("query_key_value", 3 * layers, 3 * stream),
        Op(
            name="rotary",
            kind="elementwise",
            count=2 * layers * sizes.rotary,
            flops=ROTARY_FLOPS * stream,
            read=stream,
            written=stream,
            held=3 * stream,
        ),
        Op(
            name="scores",
            kind="attention",
            count=layers,
            flops=2 * batch * tokens * tokens * hidden,
            read=2 * stream,
            written=scores,
            held=2 * stream,
        ),
        Op(
            name="softmax",
            kind="elementwise",
            count=layers,
            flops=(SOFTMAX_FLOPS + ALIBI_FLOPS * sizes.alibi) * scores,
            read=scores,
            written=scores,
            held=2 * stream,
        ),
        Op(
            name="mix",
            kind="attention",
            count=layers,
            flops=2 * batch * tokens * tokens * hidden,
            read=scores + stream,
            written=stream,
            held=stream,
        ),
        project("out", layers, stream),
    ]


def _feedforward(sizes: Sizes, positions: Count) -> list[Op]:
    layers, hidden, inner = sizes.layers, sizes.hidden, sizes.inner
    stream, wide = positions * hidden, positions * inner
    return [
        _matmul("up", layers, hidden, inner, positions, stream),
        _matmul("gate", layers * sizes.gated, hidden, inner, positions, stream + wide),
        Op(
            name="activation",
            kind="elementwise",
            count=layers,
            flops=(ACTIVATION_FLOPS + sizes.gated) * wide,
            read=(1 + sizes.gated) * wide,
            written=wide,
            held=stream,
        ),
        _matmul("down", layers, inner, hidden, positions, stream),
    ]


def _mamba(sizes: Sizes, batch: int, tokens: int) -> list[Op]:
    """Mamba-1 (Gu and Dao 2023, arXiv:2312.00752), its scan fused.

    The scan keeps states on the chip, as the paper's kernel does: it writes the
    last state, never one a token.
    """
    layers, hidden, inner = sizes.layers, sizes.hidden, sizes.inner
    rank, positions = sizes.step_rank, batch * tokens
    stream, wide = positions * hidden, positions * inner
    both = 2 * MAMBA_STATE  # the input and output vectors of the state
    return [
        *_residual_stream(sizes, positions, layers),
        _matmul("in_proj", layers, hidden, 2 * inner, positions, stream),
        Op(
            name="conv",
            kind="elementwise",
            count=layers,
            weights=(
                Weight(inner, MAMBA_TAPS, quantised=False),
                Weight(1, inner, quantised=False),
            ),
            flops=(2 * MAMBA_TAPS + 1 + ACTIVATION_FLOPS) * wide,
            read=wide,
            written=wide,
            held=stream + wide,
        ),
        _matmul("x_proj", layers, inner, rank + both, positions, stream + wide),
        _matmul(
            "dt_proj",
            layers,
            rank,
            inner,
            positions,
            stream + 2 * wide + positions * both,
        ),
        Op(
            name="softplus",
            kind="elementwise",
            count=layers,
            weights=(Weight(1, inner, quantised=False),),  # dt_proj's bias
            flops=SOFTPLUS_FLOPS * wide,
            read=wide,
            written=wide,
            held=stream + 2 * wide + positions * both,
        ),
        Op(
            name="scan",
            kind="scan",
            count=layers,
            weights=(
                Weight(inner, MAMBA_STATE, quantised=False),  # A_log
                Weight(1, inner, quantised=False),  # D
            ),
            flops=(SCAN_FLOPS * MAMBA_STATE + 3) * wide,  # 3: step times x, D's skip
            read=2 * wide + positions * both,
            written=wide + batch * inner * MAMBA_STATE,
            held=stream + wide,
        ),
        Op(
            name="output_gate",
            kind="elementwise",
            count=layers,
            flops=(ACTIVATION_FLOPS + 1) * wide,
            read=2 * wide,
            written=wide,
            held=stream,
        ),
        _matmul("out_proj", layers, inner, hidden, positions, stream),
    ]


_BLOCKS = {"transformer": _transformer, "mamba": _mamba}
