"""What a model wrote is contained, and passes only if it is right."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import hostile
import pytest

from jaxnas.benchmarks.problems import read_humaneval, read_mbpp
from jaxnas.benchmarks.sandbox import (
    SandboxLimits,
    Submission,
    find_sandbox,
    judge,
    judge_all,
    launch,
)
from jaxnas.benchmarks.sandbox.inside import syscalls
from jaxnas.errors import UsageError

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
NOBODY = 65534
SANDBOXES = ["bubblewrap", pytest.param("Landlock", marks=pytest.mark.slow)]


def sandbox_or_skip(name):
    """The sandbox of that name, if this machine has it."""
    if sys.platform != "linux":
        pytest.skip("the sandbox is Linux's")
    made = launch.SANDBOXES[name]()
    error = "absent" if made is None else launch._trial(made)
    if made is None or error:
        pytest.skip(f"{name}: {error}")
    return made


@pytest.fixture
def outside(tmp_path):
    """A file that must stay as it is, and a folder that must stay empty."""
    secret, folder = tmp_path / "home" / "secret", tmp_path / "folder"
    secret.parent.mkdir()
    secret.write_text("secret")
    folder.mkdir()
    for path in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        path.chmod(0o755)
    folder.chmod(0o777)  # nothing but the sandbox keeps programs from writing there
    return secret, folder


def check(found, secret, folder):
    """No program got what it wanted, and nothing outside has changed."""
    assert found.pop("is right")[0]
    assert len(found) >= 25
    assert [name for name, (passed, _) in found.items() if passed] == []
    assert all(why for _, why in found.values())
    assert secret.read_text() == "secret"
    assert secret.stat().st_mode & 0o777 == 0o644
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", SANDBOXES)
def test_hostile_programs_are_contained(name, outside):
    sandbox_or_skip(name)
    check(hostile.verdicts(name, *outside), *outside)
    assert not left_behind()


@pytest.mark.parametrize("name", SANDBOXES)
def test_hostile_programs_of_a_user_are_contained(name, outside):
    """Root's powers are not what contains them."""
    sandbox_or_skip(name)
    if os.geteuid() != 0:
        pytest.skip("the other test ran as a user")
    given = json.dumps([name, *map(str, outside)])
    path = [str(ROOT), str(ROOT / "tests"), *sys.path[1:]]
    done = subprocess.run(
        [python_for_all(), str(ROOT / "tests" / "hostile.py"), given],
        env={"PYTHONPATH": os.pathsep.join(path), "PATH": os.defpath},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
    )
    if "Permission denied" in done.stderr:
        pytest.skip("this checkout is root's alone")
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), *outside)


def python_for_all():
    """An interpreter of this version that another user can start."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = shutil.which(name, path="/usr/bin:/usr/local/bin")
    return found or pytest.skip(f"no {name} that is not root's alone")


def left_behind():
    """Processes of the sandbox that are still there, a moment later."""
    for _ in range(50):
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if b"from inside import" in command:
                found.append(command)
        if not found:
            return []
        time.sleep(0.1)
    return found


def test_the_clock_ends_a_program():
    sandbox = find_or_skip()
    begin = time.monotonic()
    program = Submission("def f():\n    while True: pass\n", "f()", ("f",))
    assert judge(program, sandbox, SandboxLimits(seconds=1)) == (
        False,
        "EOFError: the program ended",
    )
    program = Submission("import time\ndef f():\n    time.sleep(9)\n", "f()", ("f",))
    assert judge(program, sandbox, SandboxLimits(seconds=1)) == (
        False,
        "more than 3 seconds",
    )
    assert time.monotonic() - begin < 9


def test_tests_that_end_early_have_not_passed():
    program = Submission("def f(): return 1\n", "raise SystemExit(0)", ("f",))
    assert judge(program, find_or_skip()) == (False, "SystemExit: 0")


def test_values_cross_as_they_are():
    code = "def same(x): return x\n"
    values = (
        *(None, True, 10**4000, -0.0, 1e300, "\ud800 \u00e9\n", b"\x00\xff", 1 + 2j),
        *([1, (2, {3})], {(1, 2): [None], "a": {}}, frozenset([1]), float("inf")),
    )
    tests = f"""
inf = float("inf")
for value in {values!r}:
    found = same(value)
    assert type(found) is type(value) and repr(found) == repr(value), value
assert same(same) is same and same(int) is int
"""
    assert judge(Submission(code, tests, ("same",)), find_or_skip()) == (True, "")


def find_or_skip():
    try:
        return find_sandbox()
    except UsageError as error:
        pytest.skip(str(error))


def test_without_a_sandbox_nothing_runs(monkeypatch):
    monkeypatch.setattr(launch, "_with_bubblewrap", lambda: None)
    monkeypatch.setattr(launch, "_with_landlock", lambda: None)
    with pytest.raises(UsageError, match="install"):
        find_sandbox()
    monkeypatch.setattr(launch.sys, "platform", "darwin")
    with pytest.raises(UsageError, match="Linux"):
        find_sandbox()


@pytest.mark.parametrize("machine", syscalls.AUDIT_ARCH)
def test_the_filter_is_a_program(machine):
    """Every jump lands, every path ends, and each call has the answer it should."""
    size = 8
    steps = syscalls.program(machine)
    assert len(steps) // size <= 4096
    assert len(set(syscalls.denied(machine))) == len(syscalls.denied(machine))

    def answer(number, arch, argument=0):
        held, at = 0, 0
        while True:
            code, yes, no, operand = syscalls.struct.unpack_from("HBBI", steps, 8 * at)
            at += 1
            match code:
                case 0x20:
                    held = {0: number, 4: arch, 16: argument}[operand]
                case 0x06:
                    return operand
                case 0x15:
                    at += yes if held == operand else no
                case 0x35:
                    at += yes if held >= operand else no
                case 0x45:
                    at += yes if held & operand else no

    arch, clone = syscalls.AUDIT_ARCH[machine], syscalls.CLONE[machine]
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050001
    assert {answer(one, arch) for one in syscalls.denied(machine)} == {refuse}
    assert answer(clone, arch, 17) == refuse
    assert answer(clone, arch, 0x10000) == allow
    assert answer(435, arch) == 0x00050000 | 38
    assert answer(0x40000000 | 41, arch) == kill
    assert answer(41, arch + 1) == kill
    assert answer({"x86_64": 1, "aarch64": 64}[machine], arch) == allow


def reference(name, read):
    if not (DATA / name).exists():
        pytest.skip("the data set is not here")
    problems = read(DATA / name)
    found = judge_all([one.reference_program() for one in problems], find_or_skip())
    return [one.name for one, found in zip(problems, found, strict=True) if found[0]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "read", "number"),
    [
        ("HumanEval.jsonl.gz", read_humaneval, 164),
        ("sanitized-mbpp.json", read_mbpp, 427),
        ("mbpp.jsonl", read_mbpp, 974),
    ],
)
def test_reference_solutions_pass(name, read, number):
    assert len(reference(name, read)) == number
