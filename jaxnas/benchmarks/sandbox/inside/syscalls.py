"""System calls that no program and no test needs, by machine.

A filter answers them with EPERM (seccomp, Linux's Documentation/userspace-api).
Numbers are those of Linux's tables for x86-64 and for arm64; calls since 5.1 have one
number everywhere.
"""

import errno
import struct
from typing import NamedTuple

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}

# Of files: mknod, chmod, chown, utime, setxattr, removexattr, truncate, handles.
# Of processes: fork, vfork, execve, kill, ptrace, memory and limits of others, kcmp.
# Of the network and of memory outside of the limit: sockets, shared memory, messages,
# queues, memfd. Of the system: mounts, namespaces, modules, keys, clocks, bpf, swap,
# reboot, names, quotas, perf, affinity, priority, personality, userfaultfd.
# fmt: off
_DENIED = {
    "x86_64": (
        *(90, 91, 92, 93, 94, 132, 133, 188, 189, 190, 197, 198, 199, 235, 259),
        *(260, 261, 268, 280, 76, 303, 304),
        *(57, 58, 59, 322, 62, 200, 234, 129, 297, 101, 310, 311, 302, 312),
        *(41, 42, 43, 44, 45, 46, 47, 49, 50, 53, 288),
        *(29, 30, 64, 68, 240, 319, 206),
        *(155, 161, 165, 166, 272, 308, 175, 176, 313, 246, 320, 248, 249, 250),
        *(163, 164, 227, 305, 321, 167, 168, 169, 170, 171, 172, 173, 179, 298),
        *(203, 141, 251, 135, 323, 103, 153, 154, 237, 256),
    ),
    "aarch64": (
        *(33, 52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16, 45, 264, 265),
        *(221, 281, 129, 130, 131, 138, 240, 117, 270, 271, 261, 272),
        *(198, 199, 200, 201, 202, 203, 206, 207, 211, 212, 242),
        *(194, 196, 190, 186, 180, 279, 0),
        *(41, 51, 40, 39, 97, 268, 105, 106, 273, 104, 294, 217, 218, 219),
        *(89, 170, 112, 266, 280, 224, 225, 142, 161, 162, 60, 241),
        *(122, 140, 30, 92, 282, 116, 58, 235, 238),
    ),
}
# Signals by pidfd, io_uring, mounts, pidfds, madvise of others, quotas, secret memory,
# fchmodat2, setxattrat.
_DENIED_EVERYWHERE = (
    *(424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 440, 442, 443),
    *(447, 448, 452, 463),
)
# fmt: on
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000  # x86-64's second table

# Classic BPF.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


class Instruction(NamedTuple):
    """An instruction: how many to leave out if it holds, if not, and its operand."""

    code: int
    if_true: int
    if_false: int
    operand: int


def denied(machine: str) -> tuple[int, ...]:
    """Numbers of the calls that fail on such a machine."""
    return _DENIED[machine] + _DENIED_EVERYWHERE


def program(machine: str) -> bytes:
    """The filter: threads may be started, processes may not.

    Raises:
      KeyError: no table is known for the machine.
    """
    steps = [
        Instruction(_LOAD, 0, 0, _ARCH),
        Instruction(_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        Instruction(_RETURN, 0, 0, _KILL),
        Instruction(_LOAD, 0, 0, _NUMBER),
        Instruction(_AT_LEAST, 0, 1, _X32),
        Instruction(_RETURN, 0, 0, _KILL),
        # Without clone3 libraries fall back to clone, whose flags can be seen.
        Instruction(_EQUAL, 0, 1, _CLONE3),
        Instruction(_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in denied(machine):
        steps += [
            Instruction(_EQUAL, 0, 1, number),
            Instruction(_RETURN, 0, 0, _ERRNO | errno.EPERM),
        ]
    steps += [
        Instruction(_EQUAL, 0, 3, CLONE[machine]),
        Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT),
        Instruction(_ANY_BIT, 1, 0, _CLONE_THREAD),
        Instruction(_RETURN, 0, 0, _ERRNO | errno.EPERM),
        Instruction(_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
