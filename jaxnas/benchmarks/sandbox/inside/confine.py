"""A process gives up, for good, what running a program does not need."""

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Sequence

from .syscalls import program

_NO_NEW_PRIVS, _SECCOMP, _DUMPABLE, _DEATH_SIGNAL, _DROP_BOUNDING = 38, 22, 4, 1, 24
_SECCOMP_FILTER = 2
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # Landlock's calls
_CAPSET = {"x86_64": 126, "aarch64": 91}

# Landlock (Linux's Documentation/userspace-api/landlock): execute, read file, read
# folder are bits 0, 2, 3. Version 3 can refuse O_TRUNC; older ones cannot.
LANDLOCK_LEAST = 3
_READ, _WRITE = 0b1101, 0b0010
_FILE = 0b0111  # what applies to a file that is no folder


def limit(seconds: int, memory: int, file_size: int) -> None:
    """Bounds of this process: CPU seconds, bytes of address space and of a file."""
    for which, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (most, most))


def confine(readable: Sequence[str]) -> None:
    """No new processes, no network, no other process, nothing of the system.

    Args:
      readable: with Landlock, the only folders that can be read; none can be
        written. Without any the file system is left as it is.

    Raises:
      OSError: the kernel lacks what this needs.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc, "prctl", _DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    _call(libc, "prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    if readable:
        _drop_capabilities(libc)
        _restrict_files(libc, readable)
    _call(libc, "prctl", _DUMPABLE, 0, 0, 0, 0)
    steps = program(platform.machine())
    held = ctypes.create_string_buffer(steps, len(steps))
    header = struct.pack("HxxxxxxP", len(steps) // 8, ctypes.addressof(held))
    _call(libc, "prctl", _SECCOMP, _SECCOMP_FILTER, header, 0, 0)


def landlock_version() -> int:
    """Of this kernel; below 1 it has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)


def _restrict_files(libc: ctypes.CDLL, readable: Sequence[str]) -> None:
    version = landlock_version()
    if version < LANDLOCK_LEAST:
        raise OSError(f"Landlock {version} is older than {LANDLOCK_LEAST}")
    every = (1 << (16 if version >= 5 else 15)) - 1
    # Then ports to bind and connect, then abstract sockets and signals.
    fields = [every] + [3] * ((version >= 4) + (version >= 6))
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    size = ctypes.c_size_t(len(attributes))
    ruleset = _call(libc, "syscall", _CREATE, attributes, size, 0)
    allowed = [(path, _READ) for path in readable if os.path.exists(path)]
    for path, rights in [*allowed, ("/dev/null", _READ | _WRITE)]:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights &= _FILE
        rule = struct.pack("=Qi", rights, opened)
        _call(libc, "syscall", _ADD, ruleset, 1, rule, 0)
        os.close(opened)
    _call(libc, "syscall", _RESTRICT, ruleset, 0)
    os.close(ruleset)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Root keeps its files, which Landlock guards, and no other power."""
    for capability in range(64):
        libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0)  # fails for those that aren't
    header = struct.pack("Ii", 0x20080522, 0)
    _call(libc, "syscall", _CAPSET[platform.machine()], header, bytes(24))


def _call(libc: ctypes.CDLL, name: str, *arguments: object) -> int:
    found = getattr(libc, name)(*arguments)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}{arguments[:1]}: {os.strerror(code)}")
    return found
