"""A whole space as columns, one axis a gene: what depends on few genes stays small.

Costs are sums of ops, and most ops depend on a few genes. An op of a width and a
feed-forward size is an array along two axes; only sums grow to the whole grid.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from arch.cost.sizes import Sizes, Storage, sizes_of
from arch.families import UNUSED
from arch.genes import DEFAULTS
from arch.space import Space

# Which genes decide a field of `Sizes`; a number of heads exists for some widths.
_HEADS = ("hidden_dim", "num_heads", "head_dim")
_GENES_OF = {
    "layers": ("num_layers",),
    "hidden": ("hidden_dim",),
    "heads": _HEADS,
    "attention": _HEADS,
    "kv_heads": (*_HEADS, "kv_heads", "kv_group"),
    "inner": ("hidden_dim", "ffn_multiplier", "ffn_dim", "inner_dim", "pruning_ratio"),
    "vocab": (),
    "gated": ("activation",),
    "tied": ("tie_embeddings",),
    "rotary": ("position_encoding",),
    "alibi": ("position_encoding",),
    "storage": ("quantization",),
}

_ANY_WIDTH = 64  # for what depends on none


class Grid(NamedTuple):
    """The genomes of one family; its arrays broadcast to `shape`, an axis a gene.

    An axis of length 1 is a gene that an array does not depend on.
    """

    shape: tuple[int, ...]  # choices a gene; 1 for the family, and where unused
    family: int  # its place among the space's
    family_axis: int | None  # of its gene, if there is one
    valid: np.ndarray  # bool, of canonical genomes
    sizes: Sizes  # int64 columns, as exported; 1 where it does not exist
    trained: Sizes  # before pruning

    def genome(self, place: tuple[int, ...]) -> np.ndarray:
        """i32[G], the canonical genome at a place of the grid."""
        genome = np.asarray(place, np.int32)
        if self.family_axis is not None:
            genome[self.family_axis] = self.family
        return genome


def grids_of(space: Space, **fields: Any) -> Iterator[Grid]:
    """The space, family by family.

    Args:
      space: see `Space`.
      **fields: of each config that are no genes: vocab_size, tie_embeddings, ...
    """
    for family, name in enumerate(space.families):
        shape = tuple(
            len(space.values(gene)) if used and gene != "arch_type" else 1
            for gene, used in zip(space.genes, space.used(name), strict=True)
        )
        lengths = dict(zip(space.genes, shape, strict=True))
        columns = _Columns(space, lengths, fields | {"arch_type": name})
        has_gene = "arch_type" in space.genes
        yield Grid(
            shape=shape,
            family=family,
            family_axis=space.genes.index("arch_type") if has_gene else None,
            valid=space.valid_grid(name),
            sizes=columns.sizes(pruned=True),
            trained=columns.sizes(pruned=False),
        )


def cells_of(space: Space) -> int:
    """Cells of all families at most: what costs can depend on tells them apart."""
    read = {gene for genes in _GENES_OF.values() for gene in genes}
    return sum(
        math.prod(
            len(space.values(gene))
            for gene, used in zip(space.genes, space.used(family), strict=True)
            if used and gene in read
        )
        for family in space.families
    )


class _Columns(NamedTuple):
    """Builds the columns of one family by building configs, a few genes at a time."""

    space: Space
    lengths: dict[str, int]
    fields: Mapping[str, Any]

    def sizes(self, pruned: bool) -> Sizes:
        columns = {
            name: self._column(name, genes, pruned) for name, genes in _GENES_OF.items()
        }
        blocks = columns.pop("storage")
        storage = Storage(blocks[..., 0], blocks[..., 1])
        return Sizes(arch_type=self.fields["arch_type"], storage=storage, **columns)

    def _column(self, name: str, genes: tuple[str, ...], pruned: bool) -> np.ndarray:
        """int64, along the axes of the genes; a pair of them for the storage."""
        genes = tuple(gene for gene in self.space.genes if gene in genes)
        choices = [self.space.values(gene)[: self.lengths[gene]] for gene in genes]
        entries, nothing = [], (1, 1) if name == "storage" else 1
        for values in itertools.product(*choices):
            sizes = self._sizes(dict(zip(genes, values, strict=True)), pruned)
            # Of a model that cannot be: anything, in the same shape.
            entries.append(getattr(sizes, name) if sizes else nothing)
        shape = [
            self.lengths[gene] if gene in genes else 1 for gene in self.space.genes
        ]
        column = np.asarray(entries, np.int64)
        # The genes come in the space's order, so that a reshape is enough.
        return column.reshape(*shape, *column.shape[1:])

    def _sizes(self, genes: Mapping[str, Any], pruned: bool) -> Sizes | None:
        # A field without a gene is what it is in all of the space; one whose gene is
        # not looked at here, what exists with any other.
        settled = {
            name: value
            for name, value in DEFAULTS.items()
            if name not in self.space.genes
        }
        fields: dict[str, Any] = {
            **UNUSED,
            "num_layers": 1,
            "hidden_dim": _ANY_WIDTH,
            **settled,
            **self.fields,
        }
        headed = set(_HEADS[1:])
        if headed & set(self.space.genes) and not headed & set(genes):
            fields |= {"num_heads": 1, "kv_heads": 1}
        try:
            config = self.space.config(genes, **fields)
        except ValueError:
            return None
        return sizes_of(config.canonical(), pruned=pruned)
