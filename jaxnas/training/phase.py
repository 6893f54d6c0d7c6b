"""Which training of a candidate is meant: the phase of the run, and the seed."""

from typing import NamedTuple


class Phase(NamedTuple):
    """A value that says where a candidate is trained.

    Attributes:
      rung: place among the run's rungs, from 0.
      name: of that rung.
      repeat: 0 is the run's own seed; from 1 on, another seed each.
    """

    rung: int = 0
    name: str = ""
    repeat: int = 0

    @property
    def stage(self) -> str:
        """Sets trainings apart from those of other phases and seeds; "" for FIRST."""
        return (f"@{self.name}" if self.rung else "") + (
            f"#{self.repeat}" if self.repeat else ""
        )

    def recorded(self) -> dict[str, str | int]:
        """What a plan's line says of it; nothing for the first phase."""
        about: dict[str, str | int] = {"phase": self.name} if self.rung else {}
        return about | ({"repeat": self.repeat} if self.repeat else {})


FIRST = Phase()
