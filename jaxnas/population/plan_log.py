"""The plans of a run, recorded before they run and executed as recorded."""

from collections.abc import Sequence
from typing import Any, TypedDict

from jaxnas.errors import UsageError
from jaxnas.population.plan import Plan
from jaxnas.population.program import Program
from jaxnas.storage.jsonl import Json, Lines
from jaxnas.storage.kinds import misfit


class _Line(TypedDict):
    keys: list[str]
    plan: Plan


class Plans:
    """Plans in their order, kept as lines if there is a file for them.

    A plan is found again by what it is for: the keys of the trainings. Between the
    plans are the programs that turned out too large, with what took their place.
    """

    def __init__(self, lines: Lines | None = None):
        """Reads the file's plans."""
        self._lines = lines
        self._known: list[tuple[list[str], Plan]] = []
        self._split: dict[Program, list[Program]] = {}
        for number, line in enumerate(self._lines or (), 1):
            try:
                self._read(line)
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

    def add(self, keys: Sequence[str], plan: Plan, **about: Any) -> None:
        """Records a plan; what it is about is for the reader of the file."""
        self._known.append((list(keys), plan))
        self._write(about | {"keys": list(keys), "plan": plan.to_dict()})

    def split(self, program: Program, parts: Sequence[Program], reason: str) -> None:
        """Records that a program does not fit, and what took its place."""
        if program not in self._split:
            self._split[program] = list(parts)
            smaller = [part.to_dict() for part in parts]
            line = {"split": program.to_dict(), "into": smaller, "reason": reason}
            self._write(line)

    def programs(self) -> list[Program]:
        """Programs of all plans so far, but those that turned out too large."""
        return list(self.homes())

    def homes(self) -> dict[Program, set[int]]:
        """On which devices each of the programs is, by the plans."""
        found: dict[Program, set[int]] = {}
        for _, plan in self._known:
            for bucket in plan.buckets:
                found.setdefault(bucket.program, set()).add(bucket.device)
            for program in plan.prepared:
                found.setdefault(program, set()).add(0)
        for program, parts in self._split.items():
            devices = found.pop(program, set())
            for part in parts:
                found.setdefault(part, set()).update(devices)
        return {one: at for one, at in found.items() if one not in self._split}

    def _read(self, line: Json) -> None:
        if "split" in line:
            parts = [Program.from_dict(part) for part in line["into"]]
            self._split[Program.from_dict(line["split"])] = parts
            return
        if (wrong := misfit(line, _Line)) is not None:
            raise ValueError(wrong)
        keys, plan = list(line["keys"]), Plan.from_dict(line["plan"])
        places = sorted(at for bucket in plan.buckets for at in bucket.members)
        if places != list(range(len(keys))):
            raise ValueError("the plan's members are not its trainings")
        self._known.append((keys, plan))

    def _write(self, line: Json) -> None:
        if self._lines is not None:
            self._lines.append(line)
