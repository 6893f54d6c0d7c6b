"""The part of a space that other software runs exactly, as a space of one's own."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import tomli_w

from arch import ArchitectureConfig
from arch.families import UNUSED, USES
from arch.genes import DEFAULTS, DERIVED
from arch.space import Space
from jaxnas.errors import UsageError

# The genes that decide whether a runtime has a model's function.
_DECIDING = ("normalization", "activation", "position_encoding", "tie_embeddings")
_SIZES = ("hidden_dim", "num_heads", "head_dim")


def shippable(
    space: Space, exports: Callable[[ArchitectureConfig], object], vocab_size: int
) -> str:
    """A space as TOML, without the models that `exports` refuses.

    Args:
      space: to take from.
      exports: raises a UsageError for a model that it has no exact form of.
      vocab_size: of the models.

    Raises:
      UsageError: nothing is left.
    """
    families, forbidden = [], []
    for family in space.families:
        refused, some = _refused(space, family, exports, vocab_size)
        if some:
            families.append(family)
            forbidden += refused
    if not families:
        raise UsageError(f"no model of space {space.name} can be exported")
    genes = {
        gene: list(values)
        for gene, values in zip(space.genes, space.choices, strict=True)
    }
    genes["arch_type"] = families
    conditions = [
        {gene: list(values) for gene, values in condition.items()}
        for condition in space.conditions
        if _still_means(condition, families)
    ]
    return tomli_w.dumps(
        {
            "name": f"{space.name}-shippable",
            "genes": genes,
            "forbid": conditions + forbidden,
        }
    )


def _refused(
    space: Space,
    family: str,
    exports: Callable[[ArchitectureConfig], object],
    vocab_size: int,
) -> tuple[list[dict[str, Any]], bool]:
    """What is left out of a family, and whether anything of it is not."""
    deciding = [gene for gene in _DECIDING if _varies(space, family, gene)]
    sizes = [gene for gene in _SIZES if _varies(space, family, gene)]
    found: list[dict[str, Any]] = []
    some = False
    for values in itertools.product(*map(space.values, deciding)):
        chosen = dict(zip(deciding, values, strict=True))
        wrong, right = [], 0
        for size in itertools.product(*map(space.values, sizes)):
            sized = dict(zip(sizes, size, strict=True))
            config = _config(family, vocab_size, chosen | sized)
            if config is None:
                continue
            try:
                exports(config)
                right += 1
            except UsageError:
                wrong.append(sized)
        some = some or right > 0
        if not right:
            found.append({"arch_type": family, **chosen})
        else:
            found += [{"arch_type": family, **chosen, **sized} for sized in wrong]
    return found, some


def _varies(space: Space, family: str, gene: str) -> bool:
    field = DERIVED[gene][0] if gene in DERIVED else gene
    used = field in USES[family] or field in ("hidden_dim", "tie_embeddings")
    return used and gene in space.genes


def _config(
    family: str, vocab_size: int, values: Mapping[str, Any]
) -> ArchitectureConfig | None:
    """A model of these values, if there can be one."""
    unused = {name: UNUSED[name] for name in UNUSED if name not in USES[family]}
    fields: dict[str, Any] = {**DEFAULTS, **unused, **values}
    fields |= {"arch_type": family, "num_layers": 2, "vocab_size": vocab_size}
    head = fields.pop("head_dim", None)
    if head is not None:
        fields["num_heads"] = fields["hidden_dim"] // head
    if "kv_heads" in USES[family]:  # as a rule not one, which some runtimes ask for
        heads = fields["num_heads"]
        groups = [n for n in range(2, heads) if heads % n == 0]
        fields["kv_heads"] = groups[-1] if groups else 1
    try:
        return ArchitectureConfig(**fields)
    except ValueError:
        return None


def _still_means(condition: Mapping[str, Any], families: list[str]) -> bool:
    named = condition.get("arch_type")
    return named is None or all(family in families for family in named)
