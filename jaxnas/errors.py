"""What ends a command."""

import contextlib
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


class UsageError(ValueError):
    """Input that cannot be used: one line for the user, exit code 2."""


class RunFailed(RuntimeError):
    """A run that could not give a result: one line for the user, exit code 1."""


class NothingAllowed(RunFailed):
    """A run whose limits no model keeps: known before anything is done."""


LONGEST = 2000  # characters of what a command says when it ends


def one_line(text: object) -> str:
    """For a terminal: what is no printable character is spelled out, much is cut.

    Errors quote what was found in files, which may be of any length and hold line
    breaks or a terminal's control sequences.
    """
    line = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in str(text)[: 2 * LONGEST]
    )
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def reason_of(error: BaseException) -> str:
    """One line that is the same each time: no addresses, no traceback."""
    line = (str(error).strip().splitlines() or [""])[0][:300]
    line = re.sub(r"0x[0-9a-fA-F]+", "0x...", line)
    return f"{type(error).__name__}: {line}"


def no_platform(error: RuntimeError | AssertionError) -> str | None:
    """What to say if JAX has no device of the platform that is asked for, or None.

    Where a plugin is missing JAX fails an assertion without a word.

    Args:
      error: raised as JAX started; of any other, nothing can be told by its text.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    text = str(error)
    if not asked or (text and "backend" not in text):
        return None
    reason = f" ({text.splitlines()[0][:200]})" if text else ""
    return f"JAX_PLATFORMS={asked!r} names no device that is here{reason}"


def lacks_memory(error: BaseException) -> bool:
    """Whether there was no memory for something, of the host or of a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def out_of_memory(error: BaseException) -> str | None:
    """What to say if there was no memory for something, or None."""
    if not lacks_memory(error):
        return None
    text = str(error)
    reason = f" ({text.splitlines()[0][:200]})" if text else ""
    return f"out of memory{reason}: ask for less at once, or end other programs"


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does."""


_asked: list[KeyboardInterrupt] = []  # what the signals raised


def asked_to_end(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that an error is, or that some library made the error of.

    Code that is not Python's, such as an extension while it is imported, may raise
    an error of its own where a signal's handler had raised.
    """
    if isinstance(error, KeyboardInterrupt):
        return error
    return _asked[-1] if _asked else None


def interrupted(error: KeyboardInterrupt) -> int:
    """Says that the command was stopped, and the error's notes.

    Returns:
      The exit code for it: 143 for `Terminated`, else 130.
    """
    terminated = isinstance(error, Terminated)
    words = ["terminated" if terminated else "interrupted"]
    words += getattr(error, "__notes__", ())
    print(f"\njaxnas: {'; '.join(words)}", file=sys.stderr)
    return 143 if terminated else 130


def end_process(code: int) -> NoReturn:
    """Ends it with an exit code; at once where it was interrupted, or lost a host.

    Threads that compile cannot be stopped, and crash where they outlive the
    interpreter; and JAX waits for hosts that are gone.
    """
    if code not in (130, 143) and not _joined():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a pipe that was closed
            stream.flush()
    os._exit(code)


def _joined() -> bool:
    """Whether JAX still belongs to the processes of other hosts."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def end_at_once_when_asked_twice() -> None:
    """Ctrl-C raises KeyboardInterrupt as always; another one then ends the process.

    What is on the disk can be gone on with at any moment, and whoever asks twice does
    not want to wait for what is being ended in order, nor to read where it was.
    """

    def at_once(*_: object) -> None:
        os._exit(130)

    def first(number: int, frame: FrameType | None) -> None:
        if _put_off(number, frame):
            return
        signal.signal(signal.SIGINT, at_once)
        _asked.append(KeyboardInterrupt())
        raise _asked[-1]

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        signal.signal(signal.SIGINT, first)


def _put_off(number: int, frame: FrameType | None) -> bool:
    """Sends a signal once more, a little later, where Python collects garbage.

    What a handler raises there is lost. Returns whether it was put off.
    """
    codes = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    if frame is None:
        return False
    again = threading.Timer(0.02, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
    return True


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Raises `Terminated` in the block when the process is told to end."""
    _asked.clear()  # of an earlier command

    def end(number: int, frame: FrameType | None) -> None:
        if _put_off(number, frame):
            return
        _asked.append(Terminated())
        raise _asked[-1]

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread, which alone hears of it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
