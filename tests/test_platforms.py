"""What the shell says of JAX, and what the process is told by a signal."""

import os
import signal
import subprocess
import sys
import time

import pytest
from corpus import write_corpus

from jaxnas.checks import fault
from jaxnas.errors import Terminated, ended_by_sigterm, interrupted
from jaxnas.report.tables import add_numbers, plain_console, plain_table


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
    codes = []

    def wait():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            codes.append(interrupted("go on"))
            raise

    with ended_by_sigterm(), pytest.raises(Terminated):
        wait()
    assert codes == [143]
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "\njaxnas: terminated; go on\n"
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert interrupted() == 130


TWICE = """
import os, signal
from jaxnas.errors import end_at_once_when_asked_twice
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
