"""A callback of the user's own, shown every candidate; it may end the search."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypedDict

from jaxnas.results.result import Result
from jaxnas.storage.files import write_json
from jaxnas.storage.kinds import read_kept

# Told of a candidate in a phase; a true value ends the search.
OnCandidate: TypeAlias = Callable[[Result], bool | None]


class EndedAfter(TypedDict):
    """What the decision's file holds: how many generations the search has."""

    generations: int


class Watcher:
    """Shows results to a callback, and keeps its decision for a resume."""

    def __init__(self, on_candidate: OnCandidate | None, path: Path) -> None:
        """Takes over what was decided before.

        Args:
          on_candidate: the callback, None for none.
          path: of the decision; absent until there is one.

        Raises:
          UsageError: the file is damaged.
        """
        self._on_candidate, self._path = on_candidate, path
        self._ends: int | None = None
        if not path.exists():
            return
        found: EndedAfter = read_kept(path, EndedAfter)
        self._ends = found["generations"]

    def ends_after(self, generations: int) -> bool:
        """Whether the callback ended the search within so many generations."""
        return self._ends is not None and generations >= self._ends

    def show(self, result: Result) -> None:
        """Calls the callback; whatever it raises goes on to the caller."""
        if self._on_candidate is None or not self._on_candidate(result):
            return
        if result.phase is None and self._ends is None:
            self._ends = result.generation + 1
            write_json(self._path, {"generations": self._ends, "id": result.id})
