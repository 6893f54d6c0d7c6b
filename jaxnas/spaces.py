"""The space of a run: one that is named, or a user's own, written as TOML."""

from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from arch.config import ArchitectureConfig
from arch.genes import Condition
from arch.space import Space
from arch.spaces import space_named
from jaxnas.errors import UsageError
from jaxnas.presets import is_space_file
from jaxnas.storage.inputs import parse_toml, read_text, user_path

KEYS = ("name", "genes", "forbid")
MOST_CHOICES = 100  # of a gene
MOST_GENOMES = 2**62  # numbers of genomes are int64
_MOST = 100_000  # of a number: costs of larger models overflow int64
_NAME_LENGTH = 64

_REAL = {
    name for name, kind in get_type_hints(ArchitectureConfig).items() if kind is float
}


class SpaceText(NamedTuple):
    """A space and what it was read from."""

    space: Space
    text: str | None  # TOML, None for one that is named


def load_space(name: str) -> Space:
    """The space of that name, or of that file if the name ends in .toml.

    Raises:
      UsageError: there is none, or the file holds none.
    """
    return read_space(name).space


def read_space(name: str, copy: Path | None = None) -> SpaceText:
    """The space of that name, or of a file, and the file's text.

    Args:
      name: in SPACES, or a path that ends in .toml.
      copy: of the file, which is read instead of it; what is named needs none.

    Raises:
      UsageError: there is none, or the file holds none.
    """
    if not is_space_file(name):
        try:
            return SpaceText(space_named(name), None)
        except ValueError as error:
            raise UsageError(f"{error}, or FILE.toml") from None
    given = user_path(name)
    path = given if copy is None else copy
    text = read_text(path)
    return SpaceText(parse_space(text, str(path), given.stem), text)


def parse_space(text: str, where: str, name: str) -> Space:
    """A space from TOML: name, [genes] and any number of [[forbid]].

    A gene has a list of values or a single one; what has no gene is as in
    `arch.space.DEFAULTS`. Each [[forbid]] leaves out the models that have one of
    its values in every gene that it names.

    Args:
      text: TOML.
      where: it stands, for errors.
      name: of the space, if the text has none.

    Raises:
      UsageError: one line with what is wrong and what is allowed.
    """
    values = parse_toml(text, where)
    try:
        return _space(values, name)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def name_and_space(name: str | None) -> tuple[str, str | None]:
    """What a run's folder is called by default, and the text of a space of one's own.

    Raises:
      UsageError: the space is a file that holds none.
    """
    if name is None or not is_space_file(name):
        return name or "search", None
    space, text = read_space(name)
    return space.name, text


def still_holds(name: str, text: str | None) -> bool:
    """Whether a space's file is there and holds the text; true of one that is named."""
    if text is None:
        return True
    try:
        return read_text(user_path(name)) == text
    except UsageError:
        return False


def _space(values: dict[str, Any], name: str) -> Space:
    if unknown := [key for key in values if key not in KEYS]:
        words = ", ".join(map(repr, unknown))
        raise ValueError(f"unknown key {words}; known: {', '.join(KEYS)}")
    name = _checked_name(values.get("name", name))
    genes = values.get("genes")
    if not isinstance(genes, dict) or not genes:
        raise ValueError(
            "needs a table [genes] with num_layers, hidden_dim and what else is to vary"
        )
    choices = {gene: _values(gene, given) for gene, given in genes.items()}
    for gene, several in choices.items():
        if len(several) > MOST_CHOICES:
            raise ValueError(
                f"gene {gene} has {len(several)} choices, at most {MOST_CHOICES} can be"
            )
    space = Space(
        name, tuple(choices.values()), tuple(choices), _conditions(values, choices)
    )
    if space.total > MOST_GENOMES:
        raise ValueError(
            f"space {name!r} has {space.total:.2g} genomes, at most "
            f"{MOST_GENOMES:.2g} can be"
        )
    return space


def _checked_name(name: object) -> str:
    """A name that a folder can have."""
    if not isinstance(name, str) or not (
        0 < len(name) <= _NAME_LENGTH
        and name.isprintable()
        and name[0] not in ". "
        and not set("/\\[]") & set(name)
    ):
        raise ValueError(
            f"name={name!r} is not allowed: needs 1 to {_NAME_LENGTH} characters that "
            f"a folder's name can have, no brackets"
        )
    return name


def _conditions(
    values: dict[str, Any], choices: dict[str, tuple]
) -> tuple[Condition, ...]:
    given = values.get("forbid", [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise ValueError("forbid is a list of tables: write [[forbid]]")
    conditions = []
    for table in given:
        condition = {gene: _values(gene, value) for gene, value in table.items()}
        for gene, bad in condition.items():
            kinds = {type(value) for value in choices.get(gene, bad)}
            for value in bad:  # True is 1, but no number of layers
                if type(value) not in kinds:
                    raise ValueError(
                        f"a condition has {gene}={value!r}, which is none of its "
                        f"choices: {', '.join(map(str, choices[gene]))}"
                    )
        conditions.append(condition)
    return tuple(conditions)


def _values(gene: str, given: object) -> tuple:
    """A gene's values: one, or a list of them."""
    values = given if isinstance(given, list) else [given]
    if not values:
        raise ValueError(f"gene {gene} has no choices: needs a value or several")
    for value in values:
        if not isinstance(value, str | bool | int | float):
            raise ValueError(
                f"{gene}={value!r} is not allowed: needs text, a number, true or false"
            )
        if isinstance(value, int | float) and not abs(value) <= _MOST:
            raise ValueError(
                f"{gene}={value!r} is not allowed: needs at most {_MOST:,}"
            )
    # As TOML writes 4 and means 4.0.
    return tuple(
        float(value) if gene in _REAL and type(value) is int else value
        for value in values
    )
