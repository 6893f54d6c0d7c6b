"""Compression of trained weights: structured pruning, then quantisation."""

from jaxnas.compress.prune import (
    prune,
    prune_in_place,
    pruned_config,
    pruned_in_place,
)
from jaxnas.compress.quantize import (
    Blocks,
    from_blocks,
    host_codes,
    round_weights,
    to_blocks,
)

__all__ = [
    "Blocks",
    "from_blocks",
    "host_codes",
    "prune",
    "prune_in_place",
    "pruned_config",
    "pruned_in_place",
    "round_weights",
    "to_blocks",
]
