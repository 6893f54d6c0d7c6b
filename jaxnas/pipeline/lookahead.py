"""What a search expects of its next generations, so that programs can be chosen."""

import dataclasses
import itertools
import math
from collections.abc import Mapping

from arch import ArchitectureConfig
from arch.config import GATED_ACTIVATIONS
from arch.cost import size_mib
from arch.space import Space
from jaxnas.population.planner import Expected
from jaxnas.population.trainer import Outlook

# Share of a later generation that is new. Half of those are like the candidates
# at hand, half are drawn from the space.
NEW_SHARE = 0.5

# Generations that may compile. In the last of them programs are made ready for
# whatever the space may still ask for; afterwards a new one has to save this many
# times what it costs.
OPEN_GENERATIONS = 3
LATE_COMPILE_WEIGHT = 100.0

# Candidates of each kind that have to be expected, for programs to be ready for them.
LEAST_EXPECTED = 0.5

# Programs that a search may compile for each candidate, and however few those are,
# while one more of them saves less than ten times what it costs.
PROGRAM_SHARE, FEWEST_PROGRAMS = 0.08, 24

# The genes that decide which models share a program, beside those in `_ends`.
_KINDS = ("arch_type", "hidden_dim", "num_heads", "head_dim", "tie_embeddings")

# Genes that decide no shape.
_LEFT_OUT = {"residual_dropout": 0.0, "quantization": "fp16", "pruning_ratio": 0.0}

# Of the genes that a program has room for, the one with the least of the other.
_ROOM = (("num_layers", "ffn_multiplier"), ("ffn_multiplier", "num_layers"))


def outlook_of(
    space: Space,
    fields: Mapping[str, int],
    *,
    population: int,
    generations: int,
    generation: int,
    new: int,
    seen: int,
    most: float = math.inf,
    max_size: float = math.inf,
) -> Outlook:
    """What is to come after a generation.

    Args:
      space: that is searched.
      fields: of a config that are no genes.
      population: candidates of a generation.
      generations: of the search.
      generation: this one, from 0.
      new: candidates of the generation that were never evaluated.
      seen: candidates evaluated before it.
      most: distinct candidates that the search ends after.
      max_size: in MiB; larger models are not trained.
    """
    left = generations - generation - 1
    rest = min(space.distinct_count, most) - seen - new
    coming = min(NEW_SHARE * left * new, max(0, rest))
    if generation >= OPEN_GENERATIONS:
        return Outlook(horizon=coming / max(1, new), compile_weight=LATE_COMPILE_WEIGHT)
    kinds: list[Expected] = []
    if coming > 0:
        configs = kinds_of(space, fields)
        number = coming / 2 / len(configs)
        # Of kinds that may never come, a program would have to have room for all.
        configs = configs if number >= LEAST_EXPECTED else []
        bounded = [_shape_within(space, one, max_size) for one in configs]
        kinds = [
            Expected(config=one, number=number) for one in bounded if one is not None
        ]
    return Outlook(
        horizon=coming / 2 / max(1, new),
        expected=kinds,
        prepares=generation == OPEN_GENERATIONS - 1,
        programs=max(
            FEWEST_PROGRAMS, PROGRAM_SHARE * min(population * generations, most)
        ),
    )


def kinds_of(space: Space, fields: Mapping[str, int]) -> list[ArchitectureConfig]:
    """The largest config for each combination that decides which share a program."""
    kinds = {gene: space.values(gene) for gene in _KINDS if gene in space.genes}
    kinds |= {
        gene: tuple(_ends(space, gene)) for gene in ("activation", "attention_dropout")
    }
    rest = {
        gene: _by_size(gene, values)
        for gene, values in zip(space.genes, space.choices, strict=True)
        if gene not in kinds and gene not in _LEFT_OUT
    }
    found = {}
    for kind in itertools.product(*kinds.values()):
        for others in itertools.product(*rest.values()):
            values = zip([*kinds, *rest], [*kind, *others], strict=True)
            try:
                config = space.config(dict(values), **{**_LEFT_OUT, **fields})
            except ValueError:  # not a combination that exists
                continue
            found[config.canonical()] = config
            break
    return list(found)


def _ends(space: Space, gene: str) -> list:
    """The choices of a gene that decide which program a model needs."""
    values = space.values(gene)
    if gene != "activation":
        return sorted({min(values), max(values)})
    gated = [one for one in values if one in GATED_ACTIVATIONS][:1]
    return gated + [one for one in values if one not in GATED_ACTIVATIONS][:1]


def _by_size(gene: str, values: tuple) -> tuple:
    """What to try of a gene: the largest alone, where all have room in it."""
    if isinstance(values[0], str) or None in values:
        return values
    most_first = tuple(sorted(values, reverse=True))
    return most_first if gene in ("kv_heads", "kv_group") else most_first[:1]


def _shape_within(
    space: Space, largest: ArchitectureConfig, max_size: float
) -> ArchitectureConfig | None:
    """What the kind's models of that size have room in; None if there are none."""
    if size_mib(largest) <= max_size:
        return largest
    stored = _least_stored(space, largest)
    room = {}
    for gene, other in _ROOM:
        thin = {**stored, other: min(space.values(other))}
        inside = [
            value
            for value in space.values(gene)
            if size_mib(dataclasses.replace(largest, **thin, **{gene: value}))
            <= max_size
        ]
        if not inside:
            return None
        room[gene] = max(inside)
    return dataclasses.replace(largest, **room).canonical()


def _least_stored(space: Space, config: ArchitectureConfig) -> dict[str, str | float]:
    """The compression that leaves the fewest bytes."""
    genes = ("quantization", "pruning_ratio")
    ways = [
        dict(zip(genes, way, strict=True))
        for way in itertools.product(*map(space.values, genes))
    ]
    return min(ways, key=lambda way: size_mib(dataclasses.replace(config, **way)))
