"""A search space: genomes of integers, and the configs that they mean."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from arch.checks import is_real
from arch.config import ArchitectureConfig
from arch.families import UNUSED, USES
from arch.genes import (
    COUPLED,
    DEFAULTS,
    DERIVED,
    GENES,
    NO_GENES,
    Condition,
    used_by,
    value_of,
)
from arch.repair import nearest_valid
from arch.space_checks import check_space

Genome: TypeAlias = Sequence[int] | np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True)
class Space:
    """Every combination of the choices, one gene a field of a config.

    A genome is i32[G], an index into each gene's choices. It is valid if its
    config exists and no condition leaves it out. Genomes that differ only in genes
    which their family does not use mean one model: `canonical` maps them to one
    genome.

    Attributes:
      name: what the space is called.
      choices: for each gene, in order, its allowed values.
      genes: of ALLOWED_GENES; fields without a gene are as in DEFAULTS.
      conditions: each leaves out the configs that have one of its values in every
        gene that it names; a family that does not use one of these has none.

    Raises:
      ValueError: a gene or a value that cannot be, or nothing that is valid.
    """

    name: str
    choices: tuple[tuple, ...]
    genes: tuple[str, ...] = GENES
    conditions: tuple[Condition, ...] = dataclasses.field(default=(), hash=False)

    def __post_init__(self) -> None:
        check_space(self)
        if not self._valid_table.any():
            raise ValueError(f"space {self.name!r} holds no valid config")

    @property
    def families(self) -> tuple[str, ...]:
        """The families it holds."""
        return self.values("arch_type")

    @functools.cached_property
    def coupled(self) -> tuple[str, ...]:
        """The genes that decide together whether a genome is valid."""
        named = {gene for condition in self.conditions for gene in condition}
        others = [gene for gene in self.genes if gene in named]
        order = [gene for gene in COUPLED if gene in self.genes]
        return tuple(dict.fromkeys([*order, *others]))

    @property
    def ordered(self) -> np.ndarray:
        """bool[G], True for the genes whose choices are ascending numbers."""
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
        free = [len(self.values(gene)) for gene in self.genes if self._is_free(gene)]
        return int(self._valid_table.sum()) * math.prod(free)

    @functools.cached_property
    def distinct_count(self) -> int:
        """Models: valid genomes, those that mean the same counted once."""
        count = 0
        for family, used in enumerate(self._used_table):
            cells = np.argwhere(self._of_family(self._valid_table, family))
            cells[:, ~used[self._at_coupled]] = 0
            free = [
                len(self.values(gene))
                for gene, is_used in zip(self.genes, used, strict=True)
                if is_used and self._is_free(gene)
            ]
            count += len(np.unique(cells, axis=0)) * math.prod(free)
        return count

    def _is_free(self, gene: str) -> bool:
        return gene not in self.coupled

    # ---- genomes and configs, on the host ----

    def config(self, values: Mapping[str, Any], **fields: Any) -> ArchitectureConfig:
        """The config of a value for each gene.

        Args:
          values: gene -> value, one of its choices or not.
          **fields: non-gene fields: vocab_size, max_seq_length, ...

        Raises:
          ValueError: it does not exist, or a condition leaves it out.
        """
        own = {**DEFAULTS, **fields, **values}
        family = own["arch_type"]
        for condition in self.conditions:
            # What a family does not use has any value in its canonical genome.
            if all(used_by(family, list(condition))) and all(
                values.get(gene, ...) in bad for gene, bad in condition.items()
            ):
                words = ", ".join(f"{gene}={values[gene]!r}" for gene in condition)
                raise ValueError(f"a condition leaves out {words}")
        if "ffn_dim" in values:
            own["ffn_multiplier"] = UNUSED["ffn_multiplier"]
        for gene, (field, whole) in DERIVED.items():
            if gene not in own:
                continue
            size = own.pop(gene)
            if field not in USES[family]:
                own[field] = UNUSED[field]
            elif own[whole] % size:
                raise ValueError(
                    f"{gene}={size!r} is not allowed: needs a divisor of "
                    f"{whole}={own[whole]}"
                )
            else:
                own[field] = own[whole] // size
        return ArchitectureConfig(**own)

    def decode(
        self, genome: Genome, **fields: str | float | bool | None
    ) -> ArchitectureConfig:
        """The canonical config of a genome i32[G].

        Args:
          genome: within the cardinalities.
          **fields: non-gene fields: vocab_size, max_seq_length, ...

        Raises:
          ValueError: the genome is out of bounds or its config does not exist.
        """
        values: dict[str, Any] = {}
        for gene, index, allowed in zip(self.genes, genome, self.choices, strict=True):
            if not 0 <= index < len(allowed):
                raise ValueError(
                    f"gene {gene}={index} is not in 0 to {len(allowed) - 1}"
                )
            values[gene] = allowed[int(index)]
        return self.config(values, **fields).canonical()

    def encode(self, config: ArchitectureConfig) -> np.ndarray:
        """The canonical genome i32[G] whose config this is.

        Raises:
          ValueError: a gene that the config's family uses has another value, or a
            field that no gene sets.
        """
        config = config.canonical()
        for name in ("ffn_dim", "attention_dim"):  # else another model would match
            value = getattr(config, name)
            if value is not None and name not in self.genes:
                raise ValueError(
                    f"{name}={value} is not in space {self.name!r}: no gene sets it"
                )
        genome = np.zeros(len(self.genes), np.int32)
        used = dict(zip(self.genes, used_by(config.arch_type, self.genes), strict=True))
        for index, gene in enumerate(self.genes):
            value, allowed = value_of(config, gene), self.choices[index]
            if not used[gene]:
                continue
            if value not in allowed:
                raise ValueError(
                    f"{gene}={value!r} is not in space {self.name!r}: "
                    f"{', '.join(map(str, allowed))}"
                )
            genome[index] = allowed.index(value)
        given = {*NO_GENES, "tie_embeddings"}.difference(self.genes)
        fields = {name: getattr(config, name) for name in given}
        try:
            found = self.decode(genome, **fields)
        except ValueError as error:
            raise ValueError(f"not in space {self.name!r}: {error}") from None
        if found != config:
            name, value = next(
                (name, value)
                for name, value in config.to_dict().items()
                if value != getattr(found, name)
            )
            raise ValueError(
                f"{name}={value!r} is not in space {self.name!r}: no gene sets it"
            )
        return genome

    def nearest(self, config: ArchitectureConfig) -> np.ndarray:
        """A valid genome i32[G] close to a config that may lie outside."""
        genome = np.zeros(len(self.genes), np.int32)
        for index, gene in enumerate(self.genes):
            value, allowed = value_of(config, gene), self.choices[index]
            if value in allowed:
                genome[index] = allowed.index(value)
            elif is_real(value) and all(map(is_real, allowed)):
                genome[index] = np.abs(np.asarray(allowed) - value).argmin()
        return np.asarray(self.repair(jnp.asarray(genome)))

    def genome_at(self, index: int) -> np.ndarray:
        """Genome i32[G] number `index` of `total`; the last gene runs fastest."""
        if not 0 <= index < self.total:
            raise ValueError(f"{index=} is not in 0 to {self.total - 1}")
        return np.asarray(np.unravel_index(index, self._lengths), np.int32)

    def index_of(self, genome: Genome) -> int:
        """The inverse of `genome_at`."""
        return int(np.ravel_multi_index(tuple(map(int, genome)), self._lengths))

    def sample(self, key: jax.Array, number: int) -> np.ndarray:
        """Draws i32[number, G], uniform over the valid genomes."""
        seed = np.asarray(jax.random.key_data(key)).tolist()
        rng = np.random.default_rng(seed)
        drawn: list[np.ndarray] = []
        while len(drawn) < number:
            genome = self.genome_at(int(rng.integers(self.total)))
            if self._valid_table[tuple(genome[self._at_coupled])]:
                drawn.append(genome)
        return np.stack(drawn)

    # ---- pure functions of one genome, for jit and vmap ----

    @property
    def cardinality(self) -> jax.Array:
        """i32[G], choices per gene."""
        return jnp.asarray(self._lengths, jnp.int32)

    def valid(self, genome: jax.Array) -> jax.Array:
        """i32[G] within the cardinalities -> bool[]."""
        cell = tuple(jnp.asarray(genome)[self._at_coupled])
        return jnp.asarray(self._valid_table)[cell]

    def repair(self, genome: jax.Array) -> jax.Array:
        """i32[G] within the cardinalities -> i32[G], the nearest valid one.

        Valid genomes come back as they are; in others the number of heads
        changes if that is enough.
        """
        genome = jnp.asarray(genome)
        cell = tuple(genome[self._at_coupled])
        return genome.at[self._at_coupled].set(jnp.asarray(self._repair_table)[cell])

    def canonical(self, genome: jax.Array) -> jax.Array:
        """i32[G] -> i32[G], with 0 for every gene the family does not use."""
        genome = jnp.asarray(genome)
        family = genome[self.genes.index("arch_type")] if self._has_families else 0
        used = jnp.asarray(self._used_table)[family]
        return jnp.where(used, genome, 0)

    # ---- tables ----

    def values(self, gene: str) -> tuple:
        """The choices of a gene; the one value of a field that has no gene."""
        if gene in self.genes:
            return self.choices[self.genes.index(gene)]
        fields = {field.name: field for field in dataclasses.fields(ArchitectureConfig)}
        return (DEFAULTS.get(gene, fields[gene].default),)

    def used(self, family: str) -> np.ndarray:
        """bool[G], which genes a family of the space uses."""
        return self._used_table[self.families.index(family)]

    def valid_grid(self, family: str) -> np.ndarray:
        """bool, G axes: which canonical genomes of a family are valid.

        An axis has length 1 where the gene decides nothing, or is not used.
        """
        index = self.families.index(family)
        table = self._of_family(self._valid_table, index)
        at = {gene: self.genes.index(gene) for gene in self.coupled}
        unused = [
            axis
            for axis, gene in enumerate(self.coupled)
            if gene != "arch_type" and not self._used_table[index][at[gene]]
        ]
        table = np.asarray(table.any(axis=tuple(unused), keepdims=True))
        places = list(at.values())
        order = np.argsort(places)
        shape = np.ones(len(self.genes), int)
        shape[np.asarray(places)[order]] = np.asarray(table.shape)[order]
        return table.transpose(order).reshape(shape)

    @property
    def _has_families(self) -> bool:
        return "arch_type" in self.genes

    def _of_family(self, table: np.ndarray, index: int) -> np.ndarray:
        """The part of a table over the coupled genes that is a family's; all axes."""
        if not self._has_families:
            return table
        axis = self.coupled.index("arch_type")
        return np.take(table, [index], axis=axis)

    @property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self.choices))

    @functools.cached_property
    def _at_coupled(self) -> np.ndarray:
        """i32[len(coupled)], the places of the coupled genes in a genome."""
        return np.asarray([self.genes.index(gene) for gene in self.coupled], np.int32)

    @functools.cached_property
    def _valid_table(self) -> np.ndarray:
        """bool over the coupled genes: built by building the configs."""
        coupled = [self.values(gene) for gene in self.coupled]
        rest = {
            gene: values[0]
            for gene, values in zip(self.genes, self.choices, strict=True)
        }
        table = [
            self._exists(rest | dict(zip(self.coupled, values, strict=True)))
            for values in itertools.product(*coupled)
        ]
        return np.asarray(table).reshape([len(values) for values in coupled])

    def _exists(self, values: dict[str, Any]) -> bool:
        try:
            self.config(values)
        except ValueError:
            return False
        return True

    @functools.cached_property
    def _repair_table(self) -> np.ndarray:
        """i32 over the coupled genes, and their nearest valid indices."""
        return nearest_valid(self._valid_table)

    @functools.cached_property
    def _used_table(self) -> np.ndarray:
        """bool[families, genes]: which genes each family of the space uses."""
        return np.asarray([used_by(name, self.genes) for name in self.families])
