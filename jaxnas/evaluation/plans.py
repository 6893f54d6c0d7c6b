"""The plans of a run, recorded before they run and executed as recorded."""

from collections.abc import Sequence
from typing import Any

from jaxnas.errors import UsageError
from jaxnas.evaluation.buckets import Plan
from jaxnas.evaluation.programs import Program
from jaxnas.records import Lines


class Plans:
    """Plans in their order, kept as lines if there is a file for them.

    A plan is found again by what it is for: the keys of the trainings.
    """

    def __init__(self, lines: Lines | None = None):
        """Reads the file's plans."""
        self._lines = lines
        self._known: list[tuple[list[str], Plan]] = []
        for number, line in enumerate(self._lines or (), 1):
            try:
                self._known.append((list(line["keys"]), Plan.from_dict(line["plan"])))
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(
                    f"{lines and lines.path} is damaged at line {number}: {error!r}"
                ) from None

    def find(self, keys: Sequence[str]) -> tuple[list[str], Plan] | None:
        """The latest plan that holds all of these trainings, with its keys."""
        for known, plan in reversed(self._known):
            if set(keys) <= set(known):
                return known, plan
        return None

    def add(self, keys: Sequence[str], plan: Plan, **about: Any):
        """Records a plan; what it is about is for the reader of the file."""
        self._known.append((list(keys), plan))
        if self._lines is not None:
            self._lines.append(about | {"keys": list(keys), "plan": plan.to_dict()})

    def programs(self) -> list[Program]:
        """Of all plans so far."""
        every = [program for _, plan in self._known for program in plan.programs()]
        return list(dict.fromkeys(every))
