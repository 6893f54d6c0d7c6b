"""A plan: what is trained in which program, on which device."""

import dataclasses

from jaxnas.population.program import Program
from jaxnas.storage.jsonl import Json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucket:
    """Members that share a program, on one device."""

    program: Program
    members: tuple[int, ...]  # places among the plan's candidates
    device: int = 0  # place among the local devices
    seconds: float  # predicted, of training and scoring; the compilation apart
    compile_seconds: float  # predicted; 0 for a program that exists
    waste: float  # share of its work that is padding, in [0, 1)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The members of each call."""
        size = self.program.lanes
        return [
            self.members[at : at + size] for at in range(0, len(self.members), size)
        ]

    def to_dict(self) -> Json:
        """As JSON types."""
        return dataclasses.asdict(self) | {"program": self.program.to_dict()}

    @classmethod
    def from_dict(cls, values: Json) -> "Bucket":
        """The inverse of `to_dict`."""
        program = Program.from_dict(values["program"])
        members = tuple(values["members"])
        return cls(**values | {"program": program, "members": members})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How some candidates are trained."""

    buckets: tuple[Bucket, ...]  # in the order in which they begin
    prepared: tuple[Program, ...] = ()  # compiled for those that will come
    seconds: float  # predicted, until all is done

    def programs(self) -> list[Program]:
        """Those that exist once the plan has run."""
        used = [bucket.program for bucket in self.buckets]
        return list(dict.fromkeys([*used, *self.prepared]))

    def to_dict(self) -> Json:
        """As JSON types."""
        return {
            "buckets": [bucket.to_dict() for bucket in self.buckets],
            "prepared": [program.to_dict() for program in self.prepared],
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: Json) -> "Plan":
        """The inverse of `to_dict`."""
        return cls(
            buckets=tuple(map(Bucket.from_dict, values["buckets"])),
            prepared=tuple(map(Program.from_dict, values["prepared"])),
            seconds=values["seconds"],
        )
