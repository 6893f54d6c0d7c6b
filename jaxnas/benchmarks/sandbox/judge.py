"""Whether a program passes its tests, found without trusting it.

The program and its tests run in two sandboxes, a wire between them: the tests call
the program and see plain data. The program can neither reach the process that decides
nor what that process writes, so it cannot say of itself that it passed.
"""

import json
import os
import secrets
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

from jaxnas.benchmarks.sandbox.launch import TMPFS, Sandbox

WAITED = 3  # times the CPU seconds, where other processes run


class SandboxLimits(NamedTuple):
    """What one program may use."""

    seconds: int = 10  # of a core; three times that by the clock
    memory: int = 1 << 29  # bytes of address space
    output: int = 1 << 20  # bytes printed


LIMITS = SandboxLimits()


class Submission(NamedTuple):
    """Something to judge.

    Attributes:
      code: Python, not trusted.
      tests: Python, of the data set.
      names: what the tests take from the code.
    """

    code: str
    tests: str
    names: tuple[str, ...]


class Verdict(NamedTuple):
    """What came of it, and one line of why if the tests do not hold."""

    passed: bool
    why: str


def judge(
    program: Submission, sandbox: Sandbox, limits: SandboxLimits = LIMITS
) -> Verdict:
    """Runs a program's tests."""
    nonce = secrets.token_hex(16)
    task = program._asdict() | {"nonce": nonce}
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(one) for one in socket.socketpair())
        file = stack.enter_context(tempfile.TemporaryFile())
        file.write(json.dumps(task).encode())
        file.seek(0)
        bounds = {
            "seconds": limits.seconds,
            "memory": limits.memory,
            "file_size": TMPFS,
        }
        candidate = stack.enter_context(
            _Process(sandbox.command("candidate", {"limits": bounds}), theirs.fileno())
        )
        settings = {"limits": bounds, "wire": ours.fileno()}
        command = sandbox.command("tester", settings)
        tester = stack.enter_context(_Process(command, file.fileno(), ours.fileno()))
        ours.close()
        theirs.close()
        said, why = _watch(candidate, tester, limits)
    try:
        found = json.loads(said)
    except ValueError:
        return Verdict(False, why or "the tests ended early")
    passed = found.get("nonce") == nonce
    return Verdict(passed, "" if passed else found.get("why", ""))


def judge_all(
    programs: Sequence[Submission],
    sandbox: Sandbox,
    limits: SandboxLimits = LIMITS,
    report: Callable[[int], None] = lambda done: None,
) -> list[Verdict]:
    """As `judge`, as many at a time as this process has cores."""
    workers = len(os.sched_getaffinity(0))
    verdicts = []
    with ThreadPoolExecutor(workers) as pool:
        for verdict in pool.map(lambda one: judge(one, sandbox, limits), programs):
            verdicts.append(verdict)
            report(len(verdicts))
    return verdicts


class _Process(subprocess.Popen[bytes]):
    """Dies, with all it started, at the end of its block."""

    def __init__(self, command: list[str], stdin: int, *kept: int) -> None:
        super().__init__(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=kept,
            env={},
        )

    def __exit__(self, *error: object) -> None:
        self.kill()
        if self.stdout is not None:
            self.stdout.close()
        self.wait()


def _watch(
    candidate: _Process, tester: _Process, limits: SandboxLimits
) -> tuple[bytes, str]:
    """What the tester says, and why it was not waited for any longer."""
    end = time.monotonic() + WAITED * limits.seconds
    said, printed = b"", 0
    with selectors.DefaultSelector() as selector:
        for process in (candidate, tester):
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ, process)
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                if key.data is tester:
                    said += data
                    if not data:
                        return said, ""
                elif not data:
                    selector.unregister(key.fileobj)
                printed += len(data)
                if printed > limits.output:
                    return b"", f"more than {limits.output} bytes of output"
    return b"", f"more than {WAITED * limits.seconds} seconds"
