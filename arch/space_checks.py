"""Whether a search space can be: its genes, their values, its conditions."""

import math
from collections.abc import Sequence
from typing import Protocol

from arch.config import ArchitectureConfig
from arch.families import UNUSED
from arch.genes import ALLOWED_GENES, DERIVED, Condition

# Combinations of coupled genes that are tabulated at most.
_MOST_CELLS = 1_000_000


class Checked(Protocol):
    """What is checked of a space; see `arch.space.Space`."""

    @property
    def name(self) -> str: ...
    @property
    def choices(self) -> tuple[tuple, ...]: ...
    @property
    def genes(self) -> tuple[str, ...]: ...
    @property
    def conditions(self) -> Sequence[Condition]: ...
    @property
    def coupled(self) -> tuple[str, ...]: ...
    def values(self, gene: str) -> tuple:
        """The choices of a gene."""


def check_space(space: Checked) -> None:
    """Raises a ValueError for a gene, a value or a condition that cannot be."""
    _check_genes(space)
    _check_choices(space)
    _check_values(space)
    _check_conditions(space)


def _check_genes(space: Checked) -> None:
    for gene in space.genes:
        if gene not in ALLOWED_GENES:
            raise ValueError(
                f"space {space.name!r} has the unknown gene {gene!r}: choose of "
                f"{', '.join(ALLOWED_GENES)}"
            )
    for gene in ("num_layers", "hidden_dim"):
        if gene not in space.genes:
            raise ValueError(f"space {space.name!r} lacks the gene {gene}")
    decided = {gene: field for gene, (field, _) in DERIVED.items()}
    decided["ffn_dim"] = "ffn_multiplier"
    for gene, field in decided.items():
        if {gene, field} <= set(space.genes):
            raise ValueError(
                f"space {space.name!r} has both {gene} and {field}: one decides "
                f"the other"
            )


def _check_choices(space: Checked) -> None:
    if len(space.choices) != len(space.genes):
        raise ValueError(
            f"a space has {len(space.genes)} genes, got {len(space.choices)} in "
            f"{space.name!r}: {', '.join(space.genes)}"
        )
    for gene, values in zip(space.genes, space.choices, strict=True):
        if not values or len(set(values)) != len(values):
            raise ValueError(
                f"gene {gene} of space {space.name!r} needs distinct choices, "
                f"got {values}"
            )


def _check_values(space: Checked) -> None:
    # In an RWKV model, with neither heads nor a choice of norm, a value is
    # refused for itself alone: only what feeds forward depends on the width.
    fields: dict = UNUSED | {"arch_type": "rwkv", "num_layers": 1, "kv_heads": 1}
    for hidden in space.values("hidden_dim"):
        for gene, values in zip(space.genes, space.choices, strict=True):
            for value in values:
                try:
                    if gene in DERIVED:
                        _check_divisor(gene, value)
                    else:
                        ArchitectureConfig(
                            **(fields | {"hidden_dim": hidden, gene: value})
                        )
                except ValueError as error:
                    raise ValueError(f"space {space.name!r}: {error}") from None


def _check_conditions(space: Checked) -> None:
    for condition in space.conditions:
        if not condition:
            raise ValueError(f"space {space.name!r}: a condition names no gene")
        for gene, values in condition.items():
            if gene not in space.genes:
                raise ValueError(
                    f"space {space.name!r}: a condition names {gene!r}, which is "
                    f"no gene of it: {', '.join(space.genes)}"
                )
            for value in values:
                if value not in space.values(gene):
                    raise ValueError(
                        f"space {space.name!r}: a condition has {gene}={value!r}, "
                        f"which is none of its choices: "
                        f"{', '.join(map(str, space.values(gene)))}"
                    )
    cells = math.prod(len(space.values(gene)) for gene in space.coupled)
    if cells > _MOST_CELLS:
        raise ValueError(
            f"space {space.name!r}: {cells:,} combinations of "
            f"{', '.join(space.coupled)} decide whether a model exists, at most "
            f"{_MOST_CELLS:,} can be"
        )


def _check_divisor(gene: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{gene}={value!r} is not allowed: needs an int of at least 1")
