"""The shapes that a spec allows, as genomes: a space for the strategies."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch.config import ArchitectureConfig
from arch.cost import STORAGE, decode, forward, total_bytes, total_flops
from arch.cost.sizes import Sizes, Storage, sizes_of
from arch.repair import nearest_valid
from jaxnas.automl.dimensions import HALF
from jaxnas.automl.spec import Spec
from jaxnas.automl.spec_checks import SpecError

MOST_COUNT = 2**61  # of any cost: a column has 64 bits
MOST_COUPLED = 2_000_000  # widths x heads x key-value heads, tried one by one

# Genes of which one decides which choices another has.
_COUPLED = _WIDTH, _HEADS, _KV_HEADS = "hidden_size", "num_heads", "kv_heads"


class GenomeBlock(NamedTuple):
    """All valid genomes of one width, as columns that broadcast."""

    genomes: tuple[np.ndarray, ...]  # i64, each gene's along its axis
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Shapes:
    """The genomes of a spec: i32[G], an index into each dimension's choices.

    Widths and numbers of heads that fit nothing are left out of the choices.

    Raises:
      SpecError: nothing is left.
    """

    spec: Spec

    def __post_init__(self) -> None:
        self._check_largest()
        if not self._fitting:
            heads = self.spec.dimensions.get(_HEADS, ())
            raise SpecError(
                f"dimensions.num_heads: none of {_few(heads)} divides a hidden_size "
                f"of {_few(self.spec.dimensions[_WIDTH])} into heads of "
                f"{_few(self.spec.head_size)} channels that "
                f"{self.spec.model['position_encoding']} and kv_heads allow"
            )

    def _check_largest(self) -> None:
        """Counts the largest shape in whole numbers, before any column is made."""
        spec, use = self.spec, self.spec.use
        most = {name: values[-1] for name, values in spec.dimensions.items()}
        width = int(most[_WIDTH])
        sizes = Sizes(
            arch_type=spec.family,
            layers=int(most.get("num_layers", 1)),
            hidden=width,
            heads=max(1, int(most.get(_HEADS, 1))),
            attention=width,
            kv_heads=max(1, int(most.get(_HEADS, 1))),
            inner=max(2 * width, int(width * most.get("ffn_multiplier", 4.0))),
            vocab=spec.model["vocab_size"],
            gated=1,
            tied=0,
            rotary=1,
            alibi=0,
            storage=STORAGE["fp16"],
        )
        counts = [
            total_flops(sizes, workload)
            for workload in (
                forward(use.batch, use.prompt),
                forward(1, use.context),
                decode(use.batch, use.context),
            )
        ]
        if max(total_bytes(sizes), *counts) * max(1, sizes.heads) > MOST_COUNT:
            raise SpecError(
                f"the largest shape ({width} channels, {sizes.layers} layers, "
                f"{sizes.vocab} tokens; batch {use.batch}, {use.prompt} read, "
                f"{use.context} remembered) is beyond what can be counted"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The dimension of each gene."""
        return tuple(self.choices)

    @functools.cached_property
    def choices(self) -> dict[str, tuple]:
        """The choices of each gene, ascending."""
        choices = dict(self.spec.dimensions)
        for index, name in enumerate(_COUPLED):
            if name in choices:
                left = {fit[index] for fit in self._fitting}
                choices[name] = tuple(sorted(left))
        return choices

    @property
    def total(self) -> int:
        """Valid genomes."""
        others = [
            len(values) for name, values in self.choices.items() if name not in _COUPLED
        ]
        return len(self._fitting) * math.prod(others)

    # ---- as `search.types.Genes` ----

    @property
    def cardinality(self) -> jax.Array:
        """i32[G], choices per gene."""
        return jnp.asarray([len(values) for values in self.choices.values()], jnp.int32)

    def valid(self, genome: jax.Array) -> jax.Array:
        """i32[G] -> bool[]."""
        return jnp.asarray(self._valid_table)[self._coupled(genome)]

    def repair(self, genome: jax.Array) -> jax.Array:
        """i32[G] -> i32[G]: heads that the width does not allow become the nearest."""
        repaired = jnp.asarray(self._repair_table)[self._coupled(genome)]
        for index, name in enumerate((_HEADS, _KV_HEADS)):
            if name in self.choices:
                genome = genome.at[self.names.index(name)].set(repaired[index])
        return genome

    # ---- genomes as columns and as configs, on the host ----

    def repaired(self, genomes: np.ndarray) -> np.ndarray:
        """i[N, G] -> i32[N, G], as `repair` does, without JAX."""
        genomes = np.array(genomes, np.int32)
        rows = self._repair_table[self._coupled(genomes.T)]
        for index, name in enumerate((_HEADS, _KV_HEADS)):
            if name in self.choices:
                genomes[:, self.names.index(name)] = rows[..., index]
        return genomes

    def sizes(self, genomes: np.ndarray | jax.Array) -> Sizes:
        """Sizes of genomes [..., G].

        int64 for a NumPy array; float32 for a jax.Array, rounded to 7 digits.
        """
        return self._sizes(tuple(genomes[..., gene] for gene in range(len(self.names))))

    def block_sizes(self, block: GenomeBlock) -> Sizes:
        """Sizes of a block's genomes, int64."""
        return self._sizes(block.genomes)

    def blocks(self) -> Iterator[GenomeBlock]:
        """All valid genomes, width by width."""
        places = {name: _places(self.choices[name]) for name in self.choices}
        for _, group in itertools.groupby(self._fitting, lambda fit: fit[0]):
            fits = list(group)
            index = {
                name: np.asarray([places[name][fit[gene]] for fit in fits])
                for gene, name in enumerate(_COUPLED)
                if name in self.choices
            }
            free = [name for name in self.names if name not in index]
            shape = (len(fits), *(len(self.choices[name]) for name in free))
            columns = []
            for name in self.names:
                axis = 0 if name in index else 1 + free.index(name)
                column = index.get(name, np.arange(len(self.choices[name])))
                ones = [1] * len(shape)
                ones[axis] = len(column)
                columns.append(column.reshape(ones))
            yield GenomeBlock(tuple(columns), shape)

    def sample(self, generator: np.random.Generator, number: int) -> np.ndarray:
        """i32[N, G], distinct valid genomes at random; all if there are no more."""
        total = self.total
        if number >= total:
            places = np.arange(total)
        elif total <= 4 * number:
            places = np.sort(generator.permutation(total)[:number])
        else:
            drawn: set[int] = set()
            while len(drawn) < number:
                more = generator.integers(0, total, number - len(drawn))
                drawn.update(more.tolist())
            places = np.asarray(sorted(drawn))
        genomes = np.zeros((len(places), len(self.names)), np.int32)
        for gene, name in enumerate(self.names):
            if name not in _COUPLED:
                places, genomes[:, gene] = np.divmod(places, len(self.choices[name]))
        fitting = np.asarray(self._fitting)[places]
        for index, name in enumerate(_COUPLED):
            if name in self.choices:
                choices = np.asarray(self.choices[name])
                genomes[:, self.names.index(name)] = np.searchsorted(
                    choices, fitting[:, index]
                )
        return genomes

    def config(self, genome: np.ndarray) -> ArchitectureConfig:
        """The config of a valid genome i[G]."""
        values = {
            name: self.choices[name][int(index)]
            for name, index in zip(self.names, genome, strict=True)
        }
        return self._config(values)

    def nearest(self, values: dict[str, float]) -> np.ndarray:
        """i32[G], a valid genome near to a shape that may lie outside."""
        genome = [
            np.abs(np.asarray(choices, float) - values.get(name, choices[0])).argmin()
            for name, choices in self.choices.items()
        ]
        return self.repaired(np.asarray([genome]))[0]

    def _config(self, values: Mapping[str, float]) -> ArchitectureConfig:
        """The config of a choice for each dimension that the family has."""
        kv_heads = int(values.get(_KV_HEADS, HALF))
        return ArchitectureConfig(
            arch_type=self.spec.family,
            num_layers=int(values.get("num_layers", 1)),
            hidden_dim=int(values[_WIDTH]),
            num_heads=int(values.get(_HEADS, 1)),
            kv_heads=None if kv_heads == HALF else kv_heads,
            ffn_multiplier=values.get("ffn_multiplier", 4.0),
            **self.spec.model,
        )

    def _sizes(self, columns: tuple[np.ndarray | jax.Array, ...]) -> Sizes:
        exact = isinstance(columns[0], np.ndarray)
        indices = dict(zip(self.names, columns, strict=True))

        def column(table: np.ndarray, *names: str) -> Any:
            """A `Count`, or a jax.Array."""
            if not names:
                return table.item()
            cells = tuple(indices[name] for name in names)
            return table[cells] if exact else jnp.asarray(table, jnp.float32)[cells]

        def choice(name: str) -> Any:
            values = np.asarray(self.choices.get(name, (1,)))
            return column(values, *([name] if name in self.choices else []))

        heads, kv_heads = choice(_HEADS), choice(_HEADS)
        if _KV_HEADS in self.choices:
            given = choice(_KV_HEADS)
            half = given == HALF
            kv_heads = half * (heads // 2) + (1 - half) * given
        with_ffn = [name for name in ("ffn_multiplier",) if name in self.choices]
        first = sizes_of(self._config(self._first))
        return first._replace(
            layers=choice("num_layers"),
            hidden=choice(_WIDTH),
            attention=choice(_WIDTH),
            heads=heads,
            kv_heads=kv_heads,
            inner=column(self._inner_table, _WIDTH, *with_ffn),
            storage=Storage(*first.storage),
        )

    @property
    def _first(self) -> dict[str, float]:
        """A shape that exists: the first that fits."""
        first = {name: values[0] for name, values in self.choices.items()}
        return first | self._named(self._fitting[0])

    def _named(self, fit: tuple[int, int, int]) -> dict[str, float]:
        """The dimensions that the family has."""
        named = zip(_COUPLED, fit, strict=True)
        return {name: value for name, value in named if name in self.spec.dimensions}

    def _coupled(self, genome: jax.Array | np.ndarray) -> tuple:
        return tuple(
            genome[self.names.index(name)] if name in self.choices else 0
            for name in _COUPLED
        )

    # ---- tables ----

    @functools.cached_property
    def _fitting(self) -> list[tuple[int, int, int]]:
        """Width, heads and key-value heads that exist together; 1 for what is not."""
        dimensions, sizes = self.spec.dimensions, frozenset(self.spec.head_size)
        coupled = [dimensions.get(name, (1,)) for name in _COUPLED]
        if (tried := math.prod(map(len, coupled))) > MOST_COUPLED:
            raise SpecError(
                f"dimensions: {tried:,} widths, heads and kv_heads together, at most "
                f"{MOST_COUPLED:,} can be"
            )
        fitting = []
        for width in dimensions[_WIDTH]:
            for heads in dimensions.get(_HEADS, (1,)):
                whole = width % heads == 0 and width // heads in sizes
                if _HEADS in dimensions and not whole:
                    continue
                for kv_heads in dimensions.get(_KV_HEADS, (1,)):
                    fit = (width, heads, kv_heads)
                    with contextlib.suppress(ValueError):
                        self._config(self._named(fit))
                        fitting.append(fit)
        return fitting

    @functools.cached_property
    def _valid_table(self) -> np.ndarray:
        """bool[widths, heads, kv heads]."""
        coupled = [self.choices.get(name, (1,)) for name in _COUPLED]
        table = np.zeros([len(values) for values in coupled], bool)
        places = [_places(values) for values in coupled]
        for fit in self._fitting:
            cell = [at[own] for at, own in zip(places, fit, strict=True)]
            table[tuple(cell)] = True
        return table

    @functools.cached_property
    def _repair_table(self) -> np.ndarray:
        """i32[widths, heads, kv heads, 2]: the nearest valid heads of each width."""
        return np.stack([nearest_valid(table) for table in self._valid_table])

    @functools.cached_property
    def _inner_table(self) -> np.ndarray:
        """i64[widths] or [widths, multipliers], channels inside."""
        widths = self.choices[_WIDTH]
        multipliers = self.choices.get("ffn_multiplier")
        if multipliers is not None:  # as `ArchitectureConfig.feedforward_dim`
            return np.outer(widths, np.asarray(multipliers, float)).astype(np.int64)
        fits = {fit[0]: fit for fit in self._fitting}
        inner = [
            self._config(self._named(fits[width])).inner_channels for width in widths
        ]
        return np.asarray(inner, np.int64)


def _places(values: tuple) -> dict:
    return {value: index for index, value in enumerate(values)}


def _few(values: tuple) -> str:
    if len(values) <= 3:
        return ", ".join(map(str, values))
    return f"{values[0]} to {values[-1]}"
