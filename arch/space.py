"""A search space: genomes of integers, and the configs that they mean."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from arch.config import ArchitectureConfig
from arch.families import UNUSED, USES

Genome: TypeAlias = Sequence[int] | np.ndarray | jax.Array

GENES = (
    "arch_type",
    "num_layers",
    "hidden_dim",
    "num_heads",
    "ffn_multiplier",
    "normalization",
    "activation",
    "position_encoding",
    "attention_dropout",
    "residual_dropout",
    "quantization",
    "pruning_ratio",
)

# The genes that decide together whether a config exists. To repair a genome
# those on the right change first: heads before all, the family last.
_COUPLED = (
    "arch_type",
    "hidden_dim",
    "normalization",
    "position_encoding",
    "num_heads",
)


@dataclasses.dataclass(frozen=True)
class Space:
    """Every combination of the choices, one gene a field of GENES.

    A genome is i32[12], an index into each gene's choices. It is valid if its
    config exists. Genomes that differ only in genes which their family does
    not use mean one model: `canonical` maps them to one genome.

    Attributes:
      name: what the space is called.
      choices: for each gene of GENES, in order, its allowed values.
    """

    name: str
    choices: tuple[tuple, ...]

    def __post_init__(self) -> None:
        if len(self.choices) != len(GENES):
            raise ValueError(
                f"a space has {len(GENES)} genes, got {len(self.choices)} in "
                f"{self.name!r}: {', '.join(GENES)}"
            )
        for gene, values in zip(GENES, self.choices, strict=True):
            if not values or len(set(values)) != len(values):
                raise ValueError(
                    f"gene {gene} of space {self.name!r} needs distinct choices, "
                    f"got {values}"
                )
        self._check_values()
        if not self._valid_table.any():
            raise ValueError(f"space {self.name!r} holds no valid config")

    def _check_values(self) -> None:
        # In an RWKV model, with neither heads nor a choice of norm, a value is
        # refused for itself alone: only what feeds forward depends on the width.
        fields: dict = UNUSED | {"arch_type": "rwkv", "num_layers": 1, "kv_heads": 1}
        for hidden in self.values("hidden_dim"):
            for gene, values in zip(GENES, self.choices, strict=True):
                for value in values:
                    try:
                        ArchitectureConfig(
                            **(fields | {"hidden_dim": hidden, gene: value})
                        )
                    except ValueError as error:
                        raise ValueError(f"space {self.name!r}: {error}") from None

    @property
    def families(self) -> tuple[str, ...]:
        """The families it holds."""
        return self.values("arch_type")

    @property
    def ordered(self) -> np.ndarray:
        """bool[12], True for the genes whose choices are ascending numbers."""
        return np.asarray(
            [
                all(isinstance(value, int | float) for value in values)
                and list(values) == sorted(values)
                for values in self.choices
            ]
        )

    # ---- counts ----

    @property
    def total(self) -> int:
        """Combinations, valid or not."""
        return math.prod(map(len, self.choices))

    @functools.cached_property
    def valid_count(self) -> int:
        """Genomes whose config exists."""
        free = [len(self.values(gene)) for gene in GENES if gene not in _COUPLED]
        return int(self._valid_table.sum()) * math.prod(free)

    @functools.cached_property
    def distinct_count(self) -> int:
        """Models: valid genomes, those that mean the same counted once."""
        count = 0
        for family, used in enumerate(self._used_table):
            cells = np.argwhere(self._valid_table[family])
            cells[:, ~used[_at(_COUPLED[1:])]] = 0
            free = [
                len(self.values(gene))
                for gene, is_used in zip(GENES, used, strict=True)
                if is_used and gene not in _COUPLED
            ]
            count += len(np.unique(cells, axis=0)) * math.prod(free)
        return count

    # ---- genomes and configs, on the host ----

    def decode(
        self, genome: Genome, **fields: str | float | bool | None
    ) -> ArchitectureConfig:
        """The canonical config of a genome i32[12].

        Args:
          genome: within the cardinalities.
          **fields: non-gene fields: vocab_size, max_seq_length, ...

        Raises:
          ValueError: the genome is out of bounds or its config does not exist.
        """
        values: dict[str, Any] = fields
        for gene, index, allowed in zip(GENES, genome, self.choices, strict=True):
            if not 0 <= index < len(allowed):
                raise ValueError(
                    f"gene {gene}={index} is not in 0 to {len(allowed) - 1}"
                )
            values[gene] = allowed[int(index)]
        return ArchitectureConfig(**values).canonical()

    def encode(self, config: ArchitectureConfig) -> np.ndarray:
        """The canonical genome i32[12] whose config this is.

        Raises:
          ValueError: a gene that the config's family uses has another value.
        """
        config = config.canonical()
        if config.ffn_dim is not None:
            raise ValueError(
                f"ffn_dim={config.ffn_dim} is not in space {self.name!r}: "
                f"no gene sets it"
            )
        genome = np.zeros(len(GENES), np.int32)
        for index, gene in enumerate(GENES):
            value, allowed = getattr(config, gene), self.choices[index]
            if gene not in USES[config.arch_type]:
                continue
            if value not in allowed:
                raise ValueError(
                    f"{gene}={value!r} is not in space {self.name!r}: "
                    f"{', '.join(map(str, allowed))}"
                )
            genome[index] = allowed.index(value)
        return genome

    def nearest(self, config: ArchitectureConfig) -> np.ndarray:
        """A valid genome i32[12] close to a config that may lie outside."""
        genome = np.zeros(len(GENES), np.int32)
        for index, gene in enumerate(GENES):
            value, allowed = getattr(config, gene), self.choices[index]
            if gene == "ffn_multiplier" and config.ffn_dim is not None:
                value = config.ffn_dim / config.hidden_dim
            if value in allowed:
                genome[index] = allowed.index(value)
            elif not isinstance(value, str):
                genome[index] = np.abs(np.asarray(allowed) - value).argmin()
        return np.asarray(self.repair(jnp.asarray(genome)))

    def genome_at(self, index: int) -> np.ndarray:
        """Genome i32[12] number `index` of `total`; the last gene runs fastest."""
        if not 0 <= index < self.total:
            raise ValueError(f"{index=} is not in 0 to {self.total - 1}")
        return np.asarray(np.unravel_index(index, self._lengths), np.int32)

    def index_of(self, genome: Genome) -> int:
        """The inverse of `genome_at`."""
        return int(np.ravel_multi_index(tuple(map(int, genome)), self._lengths))

    def sample(self, key: jax.Array, number: int) -> np.ndarray:
        """Draws i32[number, 12], uniform over the valid genomes."""
        seed = np.asarray(jax.random.key_data(key)).tolist()
        rng = np.random.default_rng(seed)
        drawn: list[np.ndarray] = []
        while len(drawn) < number:
            genome = self.genome_at(int(rng.integers(self.total)))
            if self._valid_table[tuple(genome[_at(_COUPLED)])]:
                drawn.append(genome)
        return np.stack(drawn)

    # ---- pure functions of one genome, for jit and vmap ----

    @property
    def cardinality(self) -> jax.Array:
        """i32[12], choices per gene."""
        return jnp.asarray(self._lengths, jnp.int32)

    def valid(self, genome: jax.Array) -> jax.Array:
        """i32[12] within the cardinalities -> bool[]."""
        cell = tuple(jnp.asarray(genome)[_at(_COUPLED)])
        return jnp.asarray(self._valid_table)[cell]

    def repair(self, genome: jax.Array) -> jax.Array:
        """i32[12] within the cardinalities -> i32[12], the nearest valid one.

        Valid genomes come back as they are; in others the number of heads
        changes if that is enough.
        """
        genome = jnp.asarray(genome)
        cell = tuple(genome[_at(_COUPLED)])
        return genome.at[_at(_COUPLED)].set(jnp.asarray(self._repair_table)[cell])

    def canonical(self, genome: jax.Array) -> jax.Array:
        """i32[12] -> i32[12], with 0 for every gene the family does not use."""
        genome = jnp.asarray(genome)
        used = jnp.asarray(self._used_table)[genome[0]]
        return jnp.where(used, genome, 0)

    # ---- tables ----

    def values(self, gene: str) -> tuple:
        """The choices of a gene."""
        return self.choices[GENES.index(gene)]

    def used(self, family: str) -> np.ndarray:
        """bool[12], which genes a family of the space uses."""
        return self._used_table[self.families.index(family)]

    def valid_grid(self, family: str) -> np.ndarray:
        """bool, 12 axes: which canonical genomes of a family are valid.

        An axis has length 1 where the gene decides nothing, or is not used.
        """
        index = self.families.index(family)
        table = self._valid_table[index : index + 1]
        coupled = [GENES.index(gene) for gene in _COUPLED]
        unused = [
            axis
            for axis, gene in enumerate(coupled)
            if gene != "arch_type" and not self._used_table[index][gene]
        ]
        table = np.asarray(table.any(axis=tuple(unused), keepdims=True))
        order = np.argsort(coupled)
        shape = np.ones(len(GENES), int)
        shape[np.asarray(coupled)[order]] = np.asarray(table.shape)[order]
        return table.transpose(order).reshape(shape)

    @property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self.choices))

    @functools.cached_property
    def _valid_table(self) -> np.ndarray:
        """bool over the coupled genes: built by building the configs."""
        coupled = [self.values(gene) for gene in _COUPLED]
        rest = {
            gene: values[0] for gene, values in zip(GENES, self.choices, strict=True)
        }
        table = [
            _exists(rest | dict(zip(_COUPLED, values, strict=True)))
            for values in itertools.product(*coupled)
        ]
        return np.asarray(table).reshape([len(values) for values in coupled])

    @functools.cached_property
    def _repair_table(self) -> np.ndarray:
        """i32 over the coupled genes, and their nearest valid indices."""
        return nearest_valid(self._valid_table)

    @functools.cached_property
    def _used_table(self) -> np.ndarray:
        """bool[families, genes]: which genes each family of the space uses."""
        return np.asarray(
            [[gene in USES[name] for gene in GENES] for name in self.families]
        )


def nearest_valid(table: np.ndarray) -> np.ndarray:
    """The valid cell that is nearest to each cell of a table.

    Args:
      table: bool[...], which combinations of genes are valid; at least one is.

    Returns:
      i32[..., axes], its indices; one step of an axis outweighs all on its right.
    """
    cells = np.argwhere(np.ones_like(table)).astype(np.int32)
    valid = np.argwhere(table).astype(np.int32)
    # As digits of a number.
    steps = np.moveaxis(np.abs(cells[:, None] - valid[None]), -1, 0)
    distance = np.ravel_multi_index(tuple(steps), table.shape)
    return valid[distance.argmin(axis=1)].reshape(*table.shape, table.ndim)


def _exists(fields: dict) -> bool:
    try:
        ArchitectureConfig(**fields)
    except ValueError:
        return False
    return True


def _at(genes: tuple[str, ...]) -> np.ndarray:
    """i32[len(genes)], the places of the genes in a genome."""
    return np.asarray([GENES.index(gene) for gene in genes])
