"""Predicted loss of an exported model, from its sizes and its training tokens.

A scaling law on the parameters outside the embeddings that a model keeps, and
what rounding its weights adds. Total parameters and megabytes are never read:
among small models they rank the embedding.
"""

from typing import NamedTuple

import numpy as np

from arch.config import ArchitectureConfig
from arch.cost.sizes import Amount, Count, Sizes, sizes_of
from arch.cost.totals import total_parameters
from arch.families import FAMILIES
from arch.scaling.laws import LAWS, ScalingLaw, effective_parameters, law_loss
from arch.scaling.rounding import bits_of, rounding_penalty

DEFAULT_LAW = LAWS["besiroglu2024"]


class Capacity(NamedTuple):
    """What a predicted loss depends on; numbers, or columns that broadcast."""

    trained: Count  # parameters outside the embeddings, before pruning
    kept: Count  # and after it
    layers: Count
    hidden: Count
    bits: Amount  # of a stored weight
    family: tuple[Count, ...]  # 1 at its place in FAMILIES, 0 elsewhere


def capacity_of(trained: Sizes, exported: Sizes) -> Capacity:
    """Reads sizes before (`pruned=False`) and after pruning; columns for columns."""
    return Capacity(
        trained=total_parameters(trained, embeddings=False),
        kept=total_parameters(exported, embeddings=False),
        layers=exported.layers,
        hidden=exported.hidden,
        bits=bits_of(exported.storage),
        family=one_hot(exported.arch_type),
    )


def one_hot(arch_type: str) -> tuple[int, ...]:
    """1 at the family's place in FAMILIES, 0 elsewhere."""
    return tuple(int(arch_type == family) for family in FAMILIES)


def expected_loss(
    capacity: Capacity, tokens: Amount, law: ScalingLaw = DEFAULT_LAW
) -> Amount:
    """Nats a token of the pruned and rounded model, by the law.

    A pruned model is taken to be worth at most the parameters that it keeps: at
    best as good as a model trained at that size.

    Args:
      capacity: numbers or columns.
      tokens: trained on, those of all epochs; above 0.
      law: see its `label` for what the figure may be called.

    Returns:
      float64 for Python numbers and NumPy columns; a jax.Array for jax.Arrays.
    """
    parameters = effective_parameters(
        law,
        capacity.kept,
        capacity.kept / capacity.trained,
        capacity.layers / capacity.hidden,
        capacity.family,
    )
    rounding = rounding_penalty(capacity.kept, tokens, capacity.bits)
    return law_loss(law, parameters, tokens) + law.rounding * rounding


def predicted_loss(
    config: ArchitectureConfig, tokens: float, law: ScalingLaw = DEFAULT_LAW
) -> float:
    """Nats a token of a config's exported model after `tokens` of training.

    Raises:
      ValueError: no tokens.
    """
    if not tokens > 0:
        raise ValueError(f"tokens={tokens!r} is not allowed: needs above 0")
    # As a column of one row: NumPy's powers are not always Python's to the last bit,
    # and a config's loss is to be the one that its space's columns show.
    own = config_capacity(config)
    capacity = Capacity(
        trained=np.asarray([own.trained]),
        kept=np.asarray([own.kept]),
        layers=np.asarray([own.layers]),
        hidden=np.asarray([own.hidden]),
        bits=np.asarray([own.bits]),
        family=own.family,
    )
    return np.asarray(expected_loss(capacity, tokens, law)).item()


def config_capacity(config: ArchitectureConfig) -> Capacity:
    """What a config's predicted loss depends on."""
    return capacity_of(sizes_of(config, pruned=False), sizes_of(config))
