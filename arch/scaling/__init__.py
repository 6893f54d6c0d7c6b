"""Predicted loss: scaling laws, from a config's sizes and training tokens.

Fitting one to measured losses is in `fit`, which needs SciPy.
"""

from arch.scaling.laws import LAWS, ScalingLaw, law_loss
from arch.scaling.predicted_loss import (
    DEFAULT_LAW,
    Capacity,
    capacity_of,
    config_capacity,
    expected_loss,
    predicted_loss,
)
from arch.scaling.rounding import bits_of, rounding_penalty

__all__ = [
    "DEFAULT_LAW",
    "LAWS",
    "Capacity",
    "ScalingLaw",
    "bits_of",
    "capacity_of",
    "config_capacity",
    "expected_loss",
    "law_loss",
    "predicted_loss",
    "rounding_penalty",
]
