"""What is read back is of the type that was written, or it is said where not."""

import dataclasses
import json
from typing import Any, NamedTuple, NotRequired, TypedDict

import pytest

from jaxnas.errors import UsageError
from jaxnas.storage.kinds import misfit, read_kept


class Point(NamedTuple):
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Shape:
    name: str
    points: tuple[Point, ...]
    pair: tuple[int, str] = (0, "")
    more: dict[str, list[int] | None] = dataclasses.field(default_factory=dict)


class Kept(TypedDict):
    shape: Shape
    seen: NotRequired[bool]
    left: Any


SOUND = {
    "shape": {"name": "a", "points": [{"x": 1}, [0.5, -1]], "pair": [1, ""]},
    "left": {},
    "of a later version": 3,
}


def changed(*path, to):
    """SOUND with another value at a place."""
    return _put(SOUND, path, to)


def _put(value, path, to):
    key, *rest = path
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[key] = _put(copy[key], rest, to) if rest else to
    return copy


def test_what_fits_fits():
    assert misfit(SOUND, Kept) is None
    assert misfit(changed("shape", "name", to="\0"), Kept) is None
    assert misfit(changed("shape", "more", to={"a": None, "b": [1]}), Kept) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "it is no JSON object"),
        ({"left": 1}, "shape is missing"),
        (changed("seen", to=1), "seen is not of type bool"),
        (changed("shape", to=3), "shape is no JSON object"),
        (changed("shape", "name", to=None), "shape.name is not of type str"),
        (changed("shape", "name", to="\ud800"), "shape.name is no Unicode text"),
        (changed("shape", "odd", to=1), "shape.odd is unknown"),
        (changed("shape", "points", 0, to={}), "shape.points[0].x is missing"),
        (
            changed("shape", "points", 1, 0, to=10**400),
            "shape.points[1][0] must be finite",
        ),
        (changed("shape", "points", to="ab"), "shape.points is no list of its length"),
        (changed("shape", "pair", to=[1]), "shape.pair is no list of its length"),
        (changed("shape", "pair", to=[1, 2]), "shape.pair[1] is not of type str"),
        (
            changed("shape", "more", to={"a": [True]}),
            "shape.more.a[0] is not of type int",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(value, said, tmp_path):
    assert misfit(value, Kept) == said
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"kept\.json is (damaged|not JSON): "):
        read_kept(path, Kept)
