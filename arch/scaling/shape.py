"""What a shape costs in predicted loss, beside its parameters: nothing, or more.

A law of parameters has no opinion about depth, feed-forward size, head size or
shared keys and values, so a search drives them into corners where nobody has
measured. Each term here is zero inside the range that was measured or is in use,
and grows with the logarithm of how far a shape lies outside. No term
is ever below zero: a shape is never worth more than its parameters.

The scale of the first two is from one published pair (Kaplan et al. 2020,
arXiv:2001.08361, section 3.1): 6 layers of 4,288 channels are within 3 % of the loss
of 48 layers of 1,600. Both terms together charge that shape 3 %.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch.cost.sizes import Amount, Sizes
from arch.cost.totals import larger
from arch.families import USES, has_heads

# Loss added, as a share of it, for a shape e times outside a range.
GROWTH = 0.0094

# Where ln(width) = 5.039 + 0.0555 layers, a width is used up by its layers: Levine et
# al. 2020, arXiv:2006.12467, fitted on 6 to 48 layers. Four of five open models have
# at least LEAST_DEPTH of these layers (experiments/shapes).
_WIDTH_AT_NO_DEPTH, _WIDTH_PER_LAYER = 5.039, 0.0555
LEAST_DEPTH = 0.45

_ASPECT_RANGE = (19.0, 130.0)
_FFN_RANGE = (4.0, 6.0)
_HEAD_RANGE = (64.0, 128.0)
# That may share a head of keys and values, or heads that there are, at no cost.
_FREE_GROUP, _FREE_KV_HEADS = 2.0, 8.0

# Shapes inside all ranges are not told apart: figure 5 of Kaplan et al. 2020 is drawn
# at this scale, a share of the loss.
UNCERTAINTY = 0.01


class ShapeTerm(NamedTuple):
    """One term.

    outside: sizes -> how many times a shape lies outside the range, at least 1.
    """

    name: str
    measure: str  # what is bounded, in words
    free: str  # the range in which it is zero
    scale: float  # share of the loss at e times outside
    uncertainty: float  # standard error of the scale, as a share of it
    source: str
    applies: Callable[[str], bool]  # to a family
    outside: Callable[[Sizes], Amount]


def shape_penalty(sizes: Sizes) -> Amount:
    """What a shape adds to its predicted loss, as a share of it; at least 0.

    Args:
      sizes: numbers, NumPy columns or jax.Arrays, which broadcast.
    """
    total: Amount = 0.0
    for value in shape_terms(sizes).values():
        total = total + value
    return total


def shape_terms(sizes: Sizes) -> dict[str, Amount]:
    """`shape_penalty` term by term, those that the family has."""
    return {
        term.name: term.scale * _log(term.outside(sizes))
        for term in TERMS
        if term.applies(sizes.arch_type)
    }


def aspect_ratio(sizes: Sizes) -> Amount:
    """Channels of the residual stream for each layer."""
    return sizes.hidden / sizes.layers


def plain_ffn_ratio(sizes: Sizes) -> Amount:
    """Channels inside the feed-forward layer for each outside, without a gate.

    A gated layer has three matrices in place of two: it counts one and a half times
    (Shazeer 2020, arXiv:2002.05202).
    """
    gated = sizes.gated * ("activation" in USES[sizes.arch_type])
    return sizes.inner * (2 + gated) / (2 * sizes.hidden)


def saturating_depth(hidden: Amount) -> Amount:
    """Layers that use up a width, by Levine et al. 2020; at least 1."""
    return larger((_log(hidden) - _WIDTH_AT_NO_DEPTH) / _WIDTH_PER_LAYER, 1.0)


def _beyond(value: Amount, least: float, most: float) -> Amount:
    return larger(larger(value / most, least / value), 1.0)


def _shallow(sizes: Sizes) -> Amount:
    return larger(LEAST_DEPTH * saturating_depth(sizes.hidden) / sizes.layers, 1.0)


def _shared(sizes: Sizes) -> Amount:
    group = sizes.heads / sizes.kv_heads / _FREE_GROUP
    few = _FREE_KV_HEADS / sizes.kv_heads
    return larger(group + few - larger(group, few), 1.0)


def _log(value: Amount) -> Amount:
    return jnp.log(value) if isinstance(value, jax.Array) else np.log(value)


_KAPLAN = "Kaplan et al. 2020, arXiv:2001.08361, section 3.1"

TERMS = (
    ShapeTerm(
        name="aspect",
        measure="channels for each layer",
        free="19 to 130, as open models have",
        scale=GROWTH,
        uncertainty=1.0,
        source=f"{_KAPLAN}: 33 and 715 channels a layer within 3 %",
        applies=lambda family: True,
        outside=lambda sizes: _beyond(aspect_ratio(sizes), *_ASPECT_RANGE),
    ),
    ShapeTerm(
        name="depth",
        measure="layers",
        free=f"from {LEAST_DEPTH} of those that use up the width",
        scale=GROWTH,
        uncertainty=1.0,
        source="Levine et al. 2020, arXiv:2006.12467, for where; "
        f"{_KAPLAN}, for how much",
        applies=has_heads,
        outside=_shallow,
    ),
    ShapeTerm(
        name="ffn",
        measure="feed-forward channels for each channel; gated ones count 1.5 times",
        free="4 to 6",
        scale=2 * GROWTH,
        uncertainty=1.0,
        source=f"{_KAPLAN}: a few percent over a wide range; the range is that of "
        "open models, the growth is assumed, twice that of the aspect ratio",
        applies=lambda family: "ffn_multiplier" in USES[family],
        outside=lambda sizes: _beyond(plain_ffn_ratio(sizes), *_FFN_RANGE),
    ),
    ShapeTerm(
        name="head",
        measure="channels of a head",
        free="64 to 128",
        scale=GROWTH,
        uncertainty=1.0,
        source=f"{_KAPLAN}: a few percent over a wide range; the range is that of "
        "open models, the growth is assumed, that of the aspect ratio",
        applies=has_heads,
        outside=lambda sizes: _beyond(sizes.attention / sizes.heads, *_HEAD_RANGE),
    ),
    ShapeTerm(
        name="kv_heads",
        measure="query heads that share one head of keys and values",
        free="up to 2, or from 8 heads of keys and values on",
        scale=0.0048,
        uncertainty=0.6,
        source="Shazeer 2019, arXiv:1911.02150: one head in place of eight adds 0.3 % "
        "(one billion words) to 1.1 % (translation) to the log perplexity; Ainslie "
        "et al. 2023, arXiv:2305.13245: eight of 64 cost next to nothing",
        applies=lambda family: "kv_heads" in USES[family],
        outside=_shared,
    ),
)
