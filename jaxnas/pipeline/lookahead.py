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

# Programs that a search may compile for each candidate, while one more of them
# saves less than ten times what it costs.
PROGRAM_SHARE = 0.08

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
        bounded = [_shape_within(space, one, max_size) for one in configs]
        kinds = [
            Expected(config=one, number=number) for one in bounded if one is not None
        ]
    return Outlook(
        horizon=coming / 2 / max(1, new),
        expected=kinds,
        prepares=generation == OPEN_GENERATIONS - 1,
        programs=PROGRAM_SHARE * min(population * generations, most),
    )


def kinds_of(space: Space, fields: Mapping[str, int]) -> list[ArchitectureConfig]:
    """The largest config for each combination that decides which share a program."""
    activations = space.values("activation")
    gated = [one for one in activations if one in GATED_ACTIVATIONS][:1]
    plain = [one for one in activations if one not in GATED_ACTIVATIONS][:1]
    found = {}
    for family, width, heads, activation, dropout in itertools.product(
        space.values("arch_type"),
        space.values("hidden_dim"),
        space.values("num_heads"),
        gated + plain,
        {
            min(space.values("attention_dropout")),
            max(space.values("attention_dropout")),
        },
    ):
        for norm, position in itertools.product(
            space.values("normalization"), space.values("position_encoding")
        ):
            try:
                config = ArchitectureConfig.from_dict(
                    {
                        "arch_type": family,
                        "num_layers": max(space.values("num_layers")),
                        "hidden_dim": width,
                        "num_heads": heads,
                        "ffn_multiplier": max(space.values("ffn_multiplier")),
                        "normalization": norm,
                        "activation": activation,
                        "position_encoding": position,
                        "attention_dropout": dropout,
                        **fields,
                    }
                )
            except ValueError:  # not a combination that exists
                continue
            found[config.canonical()] = config
            break
    return list(found)


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
