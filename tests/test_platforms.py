"""What the shell says of JAX, and what the process is told by a signal."""

import os
import signal
import subprocess
import sys
import time
import types

import pytest
from corpus import write_corpus

from jaxnas.checks import fault
from jaxnas.errors import Terminated, ended_by_sigterm, interrupted
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.run import main as run_command


def command(*arguments, folder, **settings):
    return subprocess.run(
        [sys.executable, "-m", "jaxnas.run", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("platform", ["nonsense", "cuda"])
def test_a_platform_that_is_not_here_is_one_line(tmp_path, platform):
    write_corpus(tmp_path / "code")
    given = ["--data", "folder:code", "--out", "run"]
    done = command(*given, folder=tmp_path, JAX_PLATFORMS=platform)
    if done.returncode == 0:  # a machine that has it
        return
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert f"JAX_PLATFORMS={platform!r} names no device" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [AssertionError(), NotImplementedError()])
def test_an_error_of_our_own_is_no_mistake_of_the_users(error, monkeypatch):
    """Whatever JAX_PLATFORMS says, where JAX starts."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")

    def fail(arguments):
        raise error

    monkeypatch.setattr("jaxnas.commands.explain.main", fail)
    with pytest.raises(type(error)):
        run_command(["explain", "llama-3-8b"])


def test_a_space_is_counted_on_any_machine(tmp_path):
    done = command("space", "minimal", folder=tmp_path, JAX_PLATFORMS="nonsense")
    assert done.returncode == 0, done.stderr
    assert "distinct" in done.stdout


def test_sixty_four_bits_are_for_others(tmp_path):
    given = ["automl", "125m", "--strategy", "random", "--budget", "60"]
    done = command(*given, folder=tmp_path, JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr


def test_sigterm_ends_a_command_as_ctrl_c_does(capsys):
    before = signal.getsignal(signal.SIGTERM)

    def told_to_end():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    with pytest.raises(Terminated) as found, ended_by_sigterm():
        told_to_end()
    assert signal.getsignal(signal.SIGTERM) is before
    found.value.add_note("go on")
    assert interrupted(found.value) == 143
    assert capsys.readouterr().err == "\njaxnas: terminated; go on\n"
    assert interrupted(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "\njaxnas: interrupted\n"


def test_a_library_may_make_another_error_of_an_interrupt(monkeypatch, capsys):
    """An extension that is being imported raises an ImportError of its own."""

    def imports(arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ImportError("while initializing the extension") from None

    def fails(arguments):
        raise ImportError("no such module")

    command = types.SimpleNamespace(main=imports)
    monkeypatch.setitem(sys.modules, "jaxnas.commands.space", command)
    assert run_command(["space"]) == 143
    assert capsys.readouterr().err == "\njaxnas: terminated\n"
    command.main = fails  # another command: nobody asked it to end
    with pytest.raises(ImportError, match="no such module"):
        run_command(["space"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory: ask for less at once"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: no 9 GB\nat"),
            "(RESOURCE_EXHAUSTED: no 9 GB)",
        ),
    ],
)
def test_where_memory_is_short_it_is_one_line(monkeypatch, capsys, error, said):
    def fails(arguments):
        raise error

    command = types.SimpleNamespace(main=fails)
    monkeypatch.setitem(sys.modules, "jaxnas.commands.space", command)
    assert run_command(["space"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


WORKS_ON = """
import sys, threading, time
from jaxnas.errors import end_process
threading.Thread(target=time.sleep, args=(60,)).start()
print("said")
end_process(int(sys.argv[1]))
"""


def test_an_interrupted_process_does_not_wait_for_its_threads():
    start = time.monotonic()
    for code in (130, 143):
        given = [sys.executable, "-c", WORKS_ON, str(code)]
        done = subprocess.run(given, capture_output=True, text=True, timeout=50)
        assert (done.returncode, done.stdout) == (code, "said\n")
    assert time.monotonic() - start < 50


TWICE = """
import os, signal
from jaxnas.errors import end_at_once_when_asked_twice
# A shell has what it runs in the background ignore interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
end_at_once_when_asked_twice()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("asked", flush=True)
os.kill(os.getpid(), signal.SIGINT)
print("still there")
"""


def test_who_asks_twice_does_not_wait():
    done = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "asked\n", "")


def test_a_signal_while_garbage_is_collected_is_not_lost():
    """What a handler raises in a callback of the collector is dropped by Python."""
    code = """
import gc, os, signal, time
from jaxnas.errors import Terminated, ended_by_sigterm
def callback(phase, about):
    if phase == "start" and not sent:
        sent.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
sent = []
try:
    with ended_by_sigterm():
        gc.callbacks.append(callback)
        gc.collect()
        print("collected", flush=True)
        time.sleep(30)
except Terminated:
    print("ended", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("collected\nended\n", "")


def test_what_an_encoding_lacks_is_spelled_out(tmp_path):
    folder = tmp_path / "r\u00fcn"
    folder.mkdir()
    done = command(
        "export",
        folder,
        "--format",
        "hf",
        "--out",
        "x",
        folder=tmp_path,
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 2
    assert "r\\xfcn" in done.stderr


@pytest.mark.parametrize(
    ("text", "wrong"), [("a\0b", "NUL"), ("caf\udce9", "UTF-8"), ("caf\u00e9", None)]
)
def test_texts_are_such_as_files_can_hold(text, wrong):
    found = fault(text, str)
    assert found is None if wrong is None else wrong in found


@pytest.mark.parametrize("width", [24, 40, 200])
def test_no_figure_is_cut(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    table = plain_table("Figures", "model")
    add_numbers(table, "params", "bits/byte", "milliseconds", "MiB")
    table.add_row("transformer L24", "123456789", "1.2345", "98765.4", "12345.67")
    plain_console().print(table)
    text = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    digits = [c for c in text if c.isdigit()]
    wanted = [c for c in "24123456789123459876541234567" if c.isdigit()]
    assert sorted(digits) == sorted(wanted)
