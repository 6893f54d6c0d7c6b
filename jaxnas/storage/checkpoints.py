"""Generation checkpoints, stored by Orbax and checked when they are read."""

import contextlib
import errno
import hashlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxnas.errors import UsageError
from jaxnas.storage import disk
from jaxnas.storage.jsonl import Json, Mark

State = TypeVar("State")

NONE: Mapping[str, Mark] = {}
_FULL = os.strerror(errno.ENOSPC)
CHANGED = "its contents have changed"
_CURE = "remove it to resume from the one before, or from the results alone"


class Checkpoints:
    """The newest few checkpoints of a folder, by step.

    Orbax writes one beside and renames it, so that a checkpoint is whole or
    not there. Each holds a digest of its arrays: what was damaged later is
    found when it is read.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Opens or makes the folder; the `keep` newest checkpoints stay."""
        self._folder, self._failed = folder, False
        policy = ocp.training.preservation_policies.LatestN(keep)
        try:
            with quiet():
                self._orbax = ocp.training.Checkpointer(
                    folder.resolve(),
                    preservation_policy=policy,
                    cleanup_tmp_directories=True,
                )
        except Exception as error:  # Orbax has no one error for a damaged folder
            raise damaged(folder, error, _CURE) from None

    def save(self, step: int, state: Any, known: Mapping[str, Mark] = NONE) -> None:
        """Saves a tree of arrays and ints; a step that is there stays.

        Args:
          step: its number.
          state: the tree.
          known: the lines that it goes with, by their files' names.
        """
        if step in [checkpoint.step for checkpoint in self._orbax.checkpoints]:
            return
        facts: Json = {"digest": digest(state)}
        if known:
            facts["known"] = {name: list(mark) for name, mark in known.items()}
        try:
            write_tree(
                self._folder / str(step),
                lambda: self._orbax.save(step, state, custom_metadata=facts),
            )
        except OSError:
            self._failed = True
            raise

    def latest(self, like: State) -> tuple[int, State] | None:
        """The newest checkpoint, or None if there is none.

        Args:
          like: a state of the same structure, shapes and dtypes.

        Returns:
          Its step, and the state.

        Raises:
          UsageError: the checkpoint is damaged.
        """
        newest = self._orbax.latest
        if newest is None:
            return None
        return newest.step, self._load(newest.step, like)

    def known(self) -> dict[str, Mark] | None:
        """The lines that the newest goes with; None if it does not say.

        Raises:
          UsageError: it is damaged.
        """
        newest = self._orbax.latest
        if newest is None:
            return None
        path = self._folder / str(newest.step)
        try:
            with quiet():
                return _known(self._orbax.metadata(newest.step).custom_metadata)
        except Exception as error:  # as below
            raise damaged(path, error, _CURE) from None

    def _load(self, step: int, like: Any) -> Any:
        path = self._folder / str(step)
        try:
            with quiet():
                facts = self._orbax.metadata(step)
                state = self._orbax.load(step, like)
                said = facts.custom_metadata["digest"]
        except Exception as error:  # as above: whatever it raises, it is damaged
            raise damaged(path, error, _CURE) from None
        if digest(state) != said:
            raise damaged(path, ValueError(CHANGED), _CURE)
        return state

    def close(self) -> None:
        """Waits for what is being written."""
        if not self._failed:
            self._orbax.close()
            return
        with quiet(), contextlib.suppress(Exception):  # it was told already
            self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Saved(NamedTuple):
    """What Orbax has written in one folder.

    Attributes:
      tree: of arrays.
      known: the lines that it goes with; None if it does not say.
    """

    tree: Any
    known: dict[str, Mark] | None


def read_saved(path: Path, cure: str = _CURE) -> Saved:
    """A checkpoint or a state, whatever it holds; nothing is changed.

    Args:
      path: its folder.
      cure: what to do where it is damaged.

    Raises:
      UsageError: it is damaged.
    """
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of where arrays lay: it does not matter
            whole = path.resolve()  # Orbax takes no other
            facts = ocp.metadata(whole)
            tree = ocp.load(whole, facts.metadata)
            said = facts.custom_metadata["digest"]
            known = _known(facts.custom_metadata)
    except Exception as error:  # as above
        raise damaged(path, error, cure) from None
    if digest(tree) != said:
        raise damaged(path, ValueError(CHANGED), cure)
    return Saved(tree, known)


def is_unfinished(path: Path) -> bool:
    """Whether Orbax was killed before it renamed this into place."""
    return ".orbax-checkpoint-tmp" in path.name


def _known(facts: Json) -> dict[str, Mark] | None:
    """What the facts beside a checkpoint say of lines."""
    found = facts.get("known")
    if found is None:
        return None
    return {name: Mark(int(n), str(said)) for name, (n, said) in found.items()}


def damaged(path: Path, error: Exception, cure: str) -> UsageError:
    """The error for a folder that Orbax cannot read."""
    _forget_tasks()
    return UsageError(f"the checkpoint {path} is damaged ({_reason(error)}): {cure}")


def _forget_tasks() -> None:
    """Orbax leaves tasks behind: their tracebacks would follow the one line."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")


class _AllButTasks:
    """Reports what Python could not raise, but for what Orbax's tasks leave."""

    def __init__(self, report: Callable[..., object]) -> None:
        """Around what reported until now."""
        self._report = report

    def __call__(self, found: Any) -> None:
        code = getattr(found.object, "cr_code", None)
        of_orbax = code is not None and "orbax" in Path(code.co_filename).parts
        late = found.object is None and str(found.exc_value) == "Event loop is closed"
        if not of_orbax and not late:
            self._report(found)


def _reason(error: Exception) -> str:
    if _FULL in str(error):  # among a thousand other characters
        return _FULL
    if "handler" in str(error):  # all that it says is which of its classes failed
        return "Orbax cannot read it"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def write_tree(path: Path, save: Callable[[], object]) -> None:
    """Has Orbax save a tree.

    Raises:
      OSError: it cannot; one line, whatever Orbax says.
    """
    try:
        with quiet(), folders_first():
            disk.save(save)
    except OSError:
        raise
    except Exception as error:  # Orbax has no one error for a disk that is full
        _forget_tasks()
        raise OSError(f"cannot write {path}: {_reason(error)}") from None


def folders_first() -> ocp.Context:
    """Has Orbax make its folders before it writes in them.

    In the background they can come too late on a busy machine.
    """
    context = ocp.Context()
    context.asynchronous.create_directories_asynchronously = False
    return context


_SILENCED = threading.Lock()
_LOGGERS = (logging.getLogger("absl"), logging.getLogger())
_inside: list[None] = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Orbax logs what it raises as well; the user gets one line, from us.

    Several threads may be inside: the last one out lets it speak again.
    """
    with _SILENCED:
        _inside.append(None)
        if not isinstance(sys.unraisablehook, _AllButTasks):
            sys.unraisablehook = _AllButTasks(sys.unraisablehook)
        for logger in _LOGGERS:
            logger.addFilter(_not_of_orbax)
    try:
        yield
    finally:
        with _SILENCED:
            _inside.pop()
            if not _inside:
                for logger in _LOGGERS:
                    logger.removeFilter(_not_of_orbax)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


def digest(state: Any) -> str:
    """A hash of all arrays, whatever tree they are read back into."""
    leaves = []
    for leaf in jax.tree.leaves(state):
        array = np.asarray(leaf)
        header = f"{array.dtype}{array.shape}".encode()
        leaves.append(hashlib.sha256(header + array.tobytes()).hexdigest())
    return hashlib.sha256("".join(sorted(leaves)).encode()).hexdigest()
