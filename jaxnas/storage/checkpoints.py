"""Generation checkpoints, stored by Orbax and checked when they are read."""

import contextlib
import errno
import hashlib
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint
from orbax.checkpoint import v1 as ocp

from jaxnas.errors import UsageError
from jaxnas.storage import disk
from jaxnas.storage.jsonl import Json, Mark

State = TypeVar("State")

NONE: Mapping[str, Mark] = {}
_STEP = re.compile("0|[1-9][0-9]{0,15}")
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
        self._folder, self._keep = folder, keep
        try:
            disk.make_folder(folder)
            for path in folder.iterdir():
                if is_unfinished(path):
                    disk.remove_folder(path)
        except OSError as error:
            raise damaged(folder, error, _CURE) from None

    def save(self, step: int, state: Any, known: Mapping[str, Mark] = NONE) -> None:
        """Saves a tree of arrays and ints; a step that is there stays.

        Args:
          step: its number.
          state: the tree.
          known: the lines that it goes with, by their files' names.
        """
        steps = self._steps()
        if step in steps:
            return
        marks = {name: list(mark) for name, mark in known.items()}
        save_tree(self._path(step), state, {"known": marks} if known else {})
        for old in [*steps, step][: -self._keep]:
            disk.remove_folder(self._path(old))

    def latest(self, like: State) -> tuple[int, State] | None:
        """The newest checkpoint, or None if there is none.

        Args:
          like: a state of the same structure, shapes and dtypes.

        Returns:
          Its step, and the state.

        Raises:
          UsageError: the checkpoint is damaged.
        """
        if not (steps := self._steps()):
            return None
        return steps[-1], load_tree(self._path(steps[-1]), like, _CURE)

    def known(self) -> dict[str, Mark] | None:
        """The lines that the newest goes with; None if it does not say.

        Raises:
          UsageError: it is damaged.
        """
        if not (steps := self._steps()):
            return None
        path = self._path(steps[-1])
        try:
            with quiet():
                return _known(ocp.metadata(path.resolve()).custom_metadata)
        except Exception as error:  # as below
            raise damaged(path, error, _CURE) from None

    def _steps(self) -> list[int]:
        """Those that are there, the oldest first."""
        names = [path.name for path in self._folder.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if _STEP.fullmatch(name))

    def _path(self, step: int) -> Path:
        return self._folder / str(step)


def save_tree(path: Path, tree: Any, facts: Json, overwrite: bool = False) -> None:
    """Has Orbax save a tree, with a digest of its arrays.

    Args:
      path: of the folder.
      tree: of arrays and ints.
      facts: kept beside it.
      overwrite: whether one that is there is replaced; else that is an error.

    Raises:
      OSError: it cannot; one line, whatever Orbax says.
    """
    told = {"custom_metadata": {"digest": digest(tree), **facts}}
    whole = path.resolve()  # Orbax takes no other
    save = ocp.save if jax.process_count() == 1 else _save_alone
    try:
        with quiet():
            disk.save(lambda: save(whole, tree, overwrite=overwrite, **told))
    except OSError:
        raise
    except Exception as error:  # Orbax has no one error for a disk that is full
        _forget_tasks()
        raise OSError(f"cannot write {path}: {_reason(error)}") from None


def load_tree(path: Path, like: State, cure: str) -> State:
    """What `save_tree` has saved.

    Args:
      path: of the folder.
      like: a tree of the same structure, shapes and dtypes.
      cure: what to do where it is damaged.

    Raises:
      UsageError: it is damaged.
    """
    whole = path.resolve()
    try:
        with quiet():
            said = ocp.metadata(whole).custom_metadata["digest"]
            found = ocp.load(whole, like)
    except Exception as error:  # Orbax has no one error for a damaged folder
        raise damaged(path, error, cure) from None
    if digest(found) != said:
        raise damaged(path, ValueError(CHANGED), cure)
    return found


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


def _save_alone(path: Path, tree: Any, overwrite: bool, **more: Any) -> None:
    """As `ocp.save`, which waits for all hosts, by one of several."""
    only = _of_this_process(orbax.checkpoint.options.MultiprocessingOptions())
    handler = orbax.checkpoint.CompositeCheckpointHandler(
        composite_options=orbax.checkpoint.CompositeOptions(
            multiprocessing_options=only
        )
    )
    saved = orbax.checkpoint.args.PyTreeSave(tree)
    composite = orbax.checkpoint.args.Composite(state=saved)
    with orbax.checkpoint.Checkpointer(handler, multiprocessing_options=only) as saver:
        saver.save(path, args=composite, force=overwrite, **more)


def _of_this_process(options: Any) -> Any:
    """Orbax's options, with no other process to wait for."""
    options.primary_host = jax.process_index()
    options.active_processes = {jax.process_index()}
    return options


def _context() -> ocp.Context:
    """How Orbax does what it is asked for.

    It makes its folders before it writes in them: in the background they can come too
    late on a busy machine. And it does not wait for the processes of other hosts.
    """
    context = ocp.Context()
    context.asynchronous.create_directories_asynchronously = False
    if jax.process_count() > 1:
        _of_this_process(context.multiprocessing)
    return context


_SILENCED = threading.Lock()
_LOGGERS = (logging.getLogger("absl"), logging.getLogger())
_inside: list[None] = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Around calls of Orbax: it logs what it raises; the user gets one line, from us.

    Several threads may be inside: the last one out lets it speak again.
    """
    with _SILENCED:
        _inside.append(None)
        if not isinstance(sys.unraisablehook, _AllButTasks):
            sys.unraisablehook = _AllButTasks(sys.unraisablehook)
        for logger in _LOGGERS:
            logger.addFilter(_not_of_orbax)
    try:
        with _context():
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
