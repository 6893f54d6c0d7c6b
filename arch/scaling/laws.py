"""Scaling laws as data: the loss that given parameters and tokens lead to.

L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, arXiv:2203.15556).
Published coefficients belong to the text, the tokenizer and the training that
they were fitted on. Elsewhere they rank models; what a loss will be, only a law
says that was fitted on losses measured there.
"""

import dataclasses
import math
from collections.abc import Sequence

from arch.cost.sizes import Amount, Count
from arch.families import FAMILIES

COUNTS = ("total", "non-embedding")

# Total parameters from those outside the embeddings, in the models that Hoffmann
# et al. trained: N + 47491 N^(1/3) (Pearce and Song 2024, arXiv:2406.12907).
EMBEDDINGS_OF_CHINCHILLA = 47491.0

# A correction for depth is none at this many layers a channel: GPT-2's 12 of 768.
LAYERS_PER_CHANNEL = 1 / 64

_COEFFICIENTS = (
    "irreducible",
    "parameter_scale",
    "parameter_exponent",
    "token_scale",
    "token_exponent",
    "pruning",
    "rounding",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """One law, with what it was fitted on; losses in nats a token.

    Depth, family and pruning change how many parameters a model is worth. They
    are zero, and change nothing, until `fit` finds them in measured losses; as
    rounding costs what is published until then.

    Raises:
      ValueError: a coefficient out of its range.
    """

    name: str
    source: str
    counts: str  # the parameters it was fitted on, one of COUNTS
    irreducible: float  # E, at least 0
    parameter_scale: float  # A, at least 0
    parameter_exponent: float  # alpha, at least 0
    token_scale: float  # B, at least 0; 0 where one number of tokens was seen
    token_exponent: float  # beta, at least 0
    parameter_range: tuple[float, float]  # least and most of those it was fitted on
    token_range: tuple[float, float]
    rows: int = 0  # measured losses of one's own that it was fitted on
    depth: float = 0.0  # N x (layers a channel, relative)^depth, above -1, below 2
    pruning: float = 0.0  # N x (share left)^pruning beyond what is gone, at least 0
    rounding: float = 1.0  # what rounding adds, over what is published; at least 0
    families: tuple[float, ...] = (0.0,) * len(FAMILIES)  # N x e^this, as FAMILIES

    def __post_init__(self) -> None:
        _require(self.counts in COUNTS, "counts", self.counts, " | ".join(COUNTS))
        for name in _COEFFICIENTS:
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        # So that another layer or channel never makes a model worth less.
        _require(-1 < self.depth < 2, "depth", self.depth, "above -1, below 2")
        got = self.families
        _require(len(got) == len(FAMILIES), "families", got, f"{len(FAMILIES)} numbers")

    @property
    def label(self) -> str:
        """What its figures may be called."""
        if self.rows:
            return f"predicted loss, fitted on {self.rows} measured losses"
        return f"a ranking, not a loss: {self.name}, not fitted on measured losses"


def law_loss(law: ScalingLaw, parameters: Amount, tokens: Amount) -> Amount:
    """The law itself.

    Args:
      law: its corrections are not read.
      parameters: outside the embeddings, above 0; numbers or columns. For a law
        of total parameters they are read as a model of Hoffmann et al. with so
        many outside its embeddings: another vocabulary changes nothing.
      tokens: trained on, above 0.

    Returns:
      Nats a token.
    """
    counted = counted_parameters(law, parameters)
    return (
        law.irreducible
        + law.parameter_scale * counted**-law.parameter_exponent
        + law.token_scale * tokens**-law.token_exponent
    )


def counted_parameters(law: ScalingLaw, parameters: Amount) -> Amount:
    """Parameters outside the embeddings, as the law counts them."""
    if law.counts == "non-embedding":
        return parameters
    return parameters + EMBEDDINGS_OF_CHINCHILLA * parameters ** (1 / 3)


def effective_parameters(
    law: ScalingLaw,
    parameters: Count,
    share_left: Amount,
    layers_per_channel: Amount,
    family: Sequence[Count],
) -> Amount:
    """Parameters after the law's corrections.

    Args:
      law: whose corrections.
      parameters: those that a model keeps.
      share_left: of the parameters trained, in (0, 1].
      layers_per_channel: layers over channels of the residual stream.
      family: 1 at its place in FAMILIES, 0 elsewhere.
    """
    of_family = sum(
        is_it * math.e**correction
        for is_it, correction in zip(family, law.families, strict=True)
    )
    relative = layers_per_channel / LAYERS_PER_CHANNEL
    return parameters * share_left**law.pruning * relative**law.depth * of_family


def _require(condition: bool, name: str, got: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name}={got!r} is not allowed: needs {allowed}")


_HOFFMANN = (44e6, 16.183e9), (5e9, 500e9)

LAWS: dict[str, ScalingLaw] = {
    law.name: law
    for law in (
        ScalingLaw(
            name="hoffmann2022",
            source="Hoffmann et al. 2022, arXiv:2203.15556, Approach 3; unrounded, as "
            "the paper's TeX source has them",
            counts="total",
            irreducible=1.6934,
            parameter_scale=406.4,
            parameter_exponent=0.3392,
            token_scale=410.7,
            token_exponent=0.2849,
            parameter_range=_HOFFMANN[0],
            token_range=_HOFFMANN[1],
        ),
        ScalingLaw(
            name="besiroglu2024",
            source="Besiroglu et al. 2024, arXiv:2404.10102: refit of Approach 3 on "
            "240 models read off the figures of Hoffmann et al.",
            counts="total",
            irreducible=1.8172,
            parameter_scale=482.01,
            parameter_exponent=0.3478,
            token_scale=2085.43,
            token_exponent=0.3658,
            parameter_range=_HOFFMANN[0],
            token_range=_HOFFMANN[1],
        ),
        ScalingLaw(
            name="kumar2024",
            source="Kumar et al. 2024, arXiv:2411.04330, table 2: small models on "
            "Dolma, one exponent for both terms",
            counts="non-embedding",
            irreducible=2.7648,
            parameter_scale=4299.0,
            parameter_exponent=0.4965,
            token_scale=18060.0,
            token_exponent=0.4965,
            parameter_range=(30e6, 220e6),
            token_range=(1.5e9, 26e9),
        ),
    )
}
